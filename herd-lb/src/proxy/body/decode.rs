//! Decodes a body as it arrives, a bounded piece at a time, so that each piece can be charged before it is kept.

use flate2::{Decompress, FlushDecompress, Status};
use pingora_proxy::Session;
use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::BodyError;
use crate::budget::Spent;

/// Most that one step decodes.
const STEP_BYTES: usize = 32 << 10;
/// What inflating takes: its window of 32 KiB and its tables.
const INFLATE_BYTES: usize = 64 << 10;
/// What decoding zstd takes beside its window.
const ZSTD_BYTES: usize = 256 << 10;
/// The largest window of zstd, as its logarithm: 8 MiB, which RFC 9659 has as the limit of this content encoding.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Most members of a gzip body, as each one costs a decoder. Programs that compress in blocks of 64 KiB for random
/// access make so many of the largest body by default.
const GZIP_MEMBERS_MAX: usize = 1_024;

/// An encoding of request bodies. Pingora never decodes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Gzip,
    Deflate,
    Zstd,
}

impl Encoding {
    /// That of the request of `session`, and what it says where that is none that can be decoded: Ollama does not look at
    /// that header, so that such a body is taken as it is.
    pub(super) fn of(session: &Session) -> (Option<Self>, Option<String>) {
        let mut values = session.req_header().headers.get_all(http::header::CONTENT_ENCODING).iter();
        let Some(value) = values.next() else { return (None, None) };
        let name = String::from_utf8_lossy(value.as_bytes()).trim().to_ascii_lowercase();
        if values.next().is_some() { (None, Some(format!("{name}, and others"))) } else { Self::named(name) }
    }

    fn named(name: String) -> (Option<Self>, Option<String>) {
        match name.as_str() {
            "" | "identity" => (None, None),
            "gzip" | "x-gzip" => (Some(Self::Gzip), None),
            "deflate" => (Some(Self::Deflate), None),
            "zstd" => (Some(Self::Zstd), None),
            _ => (None, Some(name)),
        }
    }

    fn corrupt(self) -> BodyError {
        BodyError::Corrupt(match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd with a window of up to 8 MiB",
        })
    }
}

/// A decoder and its state.
pub(super) struct Decoder {
    encoding: Encoding,
    codec: Codec,
    /// What the last step has decoded.
    piece: Box<[u8]>,
    /// All that has come is decoded, and nothing more needs to come.
    complete: bool,
    /// The last step was as large as steps may be.
    full: bool,
    members: usize,
    decoded_bytes: usize,
}

enum Codec {
    Inflate(Decompress),
    Zstd(DCtx<'static>),
}

/// What one step did.
pub(super) struct Step<'a> {
    /// Bytes of the input that it has read.
    pub(super) taken: usize,
    /// What it has decoded.
    pub(super) decoded: &'a [u8],
}

impl Decoder {
    pub(super) fn new(encoding: Encoding) -> Result<Self, BodyError> {
        let codec = match encoding {
            Encoding::Gzip => Codec::Inflate(gzip_member()),
            Encoding::Deflate => Codec::Inflate(Decompress::new(true)),
            Encoding::Zstd => {
                let mut context = DCtx::try_create().ok_or(BodyError::Budget(Spent))?;
                let bounded = context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX));
                bounded.map_err(|_| encoding.corrupt())?;
                Codec::Zstd(context)
            }
        };
        let piece = vec![0; STEP_BYTES].into();
        Ok(Self { encoding, codec, piece, complete: false, full: false, members: 1, decoded_bytes: 0 })
    }

    /// Memory that it takes. A window of zstd counts as far as it has been written to: what was not is no memory.
    pub(super) fn memory_bytes(&self) -> usize {
        let state = match &self.codec {
            Codec::Inflate(_) => INFLATE_BYTES,
            Codec::Zstd(context) => context.sizeof().min(ZSTD_BYTES + self.decoded_bytes),
        };
        STEP_BYTES + state
    }

    /// Says that nothing more comes.
    pub(super) fn finish(self) -> Result<(), BodyError> {
        if self.complete { Ok(()) } else { Err(self.encoding.corrupt()) }
    }

    /// Decodes some of `raw`; `None` = nothing is left of it.
    pub(super) fn step(&mut self, raw: &[u8]) -> Result<Option<Step<'_>>, BodyError> {
        // Only a full step leaves something behind in the decoder.
        if raw.is_empty() && (self.complete || !std::mem::take(&mut self.full)) {
            return Ok(None);
        }
        self.begin_member()?;
        let (taken, decoded, complete) = match &mut self.codec {
            Codec::Inflate(inflate) => inflate_step(inflate, raw, &mut self.piece),
            Codec::Zstd(context) => zstd_step(context, raw, &mut self.piece),
        }
        .ok_or(self.encoding.corrupt())?;
        if taken == 0 && decoded == 0 && !raw.is_empty() && !complete {
            return Err(self.encoding.corrupt());
        }
        self.complete = complete;
        self.full = decoded == STEP_BYTES;
        self.decoded_bytes = self.decoded_bytes.saturating_add(decoded);
        Ok(Some(Step { taken, decoded: &self.piece[..decoded] }))
    }

    /// Where one member has ended and more comes, that is another one. zstd sees to its frames itself.
    fn begin_member(&mut self) -> Result<(), BodyError> {
        let Codec::Inflate(inflate) = &mut self.codec else { return Ok(()) };
        if !std::mem::take(&mut self.complete) {
            return Ok(());
        }
        self.members += 1;
        if self.encoding == Encoding::Deflate || self.members > GZIP_MEMBERS_MAX {
            return Err(self.encoding.corrupt());
        }
        *inflate = gzip_member();
        Ok(())
    }
}

/// Reads the header of a member and checks its sums itself.
fn gzip_member() -> Decompress {
    Decompress::new_gzip(15)
}

/// Bytes taken and decoded, and whether that was the end; `None` = it does not decode.
fn inflate_step(inflate: &mut Decompress, raw: &[u8], piece: &mut [u8]) -> Option<(usize, usize, bool)> {
    let before = (inflate.total_in(), inflate.total_out());
    let status = inflate.decompress(raw, piece, FlushDecompress::None).ok()?;
    let taken = usize::try_from(inflate.total_in() - before.0).ok()?;
    let decoded = usize::try_from(inflate.total_out() - before.1).ok()?;
    Some((taken, decoded, status == Status::StreamEnd))
}

fn zstd_step(context: &mut DCtx<'static>, raw: &[u8], piece: &mut [u8]) -> Option<(usize, usize, bool)> {
    let (mut input, mut output) = (InBuffer::around(raw), OutBuffer::around(piece));
    let left = context.decompress_stream(&mut output, &mut input).ok()?;
    Some((input.pos(), output.pos(), left == 0))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const TEXT: &[u8] = b"{\"model\":\"m\"}";

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn encoded(text: &[u8]) -> [(Encoding, Vec<u8>); 3] {
        [
            (Encoding::Gzip, gzip(text)),
            (Encoding::Deflate, deflate(text)),
            (Encoding::Zstd, zstd::encode_all(text, 3).unwrap()),
        ]
    }

    /// The whole of `raw`, given in pieces of `piece` bytes; `None` = it does not decode.
    fn decode(encoding: Encoding, raw: &[u8], piece: usize) -> Option<Vec<u8>> {
        let mut decoder = Decoder::new(encoding).unwrap();
        let mut text = Vec::new();
        for mut rest in raw.chunks(piece) {
            while let Some(step) = decoder.step(rest).ok()? {
                rest = &rest[step.taken..];
                text.extend_from_slice(step.decoded);
                assert!(step.decoded.len() <= STEP_BYTES);
            }
        }
        decoder.finish().ok().map(|()| text)
    }

    #[test]
    fn bodies_decode_however_they_come() {
        let long: Vec<u8> = (0..200_000_u32).flat_map(|number| (number / 7).to_le_bytes()).collect();
        for text in [TEXT, b"", &vec![b'x'; 3 * STEP_BYTES], &long] {
            for (encoding, raw) in encoded(text) {
                for piece in [1, 7, 4_096, usize::MAX] {
                    assert!(decode(encoding, &raw, piece).as_deref() == Some(text), "{encoding:?} {piece}");
                }
                for broken in [&raw[..0], &raw[..raw.len() - 1], &raw[..raw.len() / 2]] {
                    assert_eq!(decode(encoding, broken, 7), None, "{encoding:?}");
                }
                let spoilt = [&raw[..], b"spoilt"].concat();
                assert_eq!(decode(encoding, &spoilt, usize::MAX), None, "{encoding:?}");
            }
        }
    }

    #[test]
    fn fuzz_encoded_bodies_decode_alike_however_they_come() {
        let raw: Vec<_> = encoded(&[TEXT, &vec![b'x'; 70_000]].concat()).into_iter().map(|(_, raw)| raw).collect();
        let samples: Vec<&[u8]> = raw.iter().map(Vec::as_slice).collect();
        herd_fuzz::run("encoded bodies", &samples, |raw| {
            // What is dense is bounded elsewhere; here it would only take time.
            const MOST: usize = 4 << 20;
            for encoding in [Encoding::Gzip, Encoding::Deflate, Encoding::Zstd] {
                let decode = |piece: usize| {
                    let mut decoder = Decoder::new(encoding).unwrap();
                    let mut text = Vec::new();
                    for mut rest in raw.chunks(piece) {
                        while let Some(step) = decoder.step(rest).ok()? {
                            assert!(step.decoded.len() <= STEP_BYTES && step.taken <= rest.len());
                            rest = &rest[step.taken..];
                            text.extend_from_slice(step.decoded);
                            if text.len() > MOST {
                                return None;
                            }
                        }
                        assert!(decoder.memory_bytes() <= 16 << 20);
                    }
                    decoder.finish().ok().map(|()| text)
                };
                assert_eq!(decode(usize::MAX), decode(3), "{encoding:?}");
            }
        });
    }

    #[test]
    fn members_and_frames_follow_each_other_within_their_limit() {
        let twice = [TEXT, TEXT].concat();
        for (encoding, raw) in encoded(TEXT) {
            let decoded = decode(encoding, &[&raw[..], &raw].concat(), 5);
            assert_eq!(decoded, (encoding != Encoding::Deflate).then(|| twice.clone()), "{encoding:?}");
        }
        let empty = gzip(b"");
        assert!(decode(Encoding::Gzip, &empty.repeat(GZIP_MEMBERS_MAX), 4_096).is_some());
        assert_eq!(decode(Encoding::Gzip, &empty.repeat(GZIP_MEMBERS_MAX + 1), 4_096), None);
        // A frame to be skipped, of four bytes.
        let skipped = b"\x50\x2a\x4d\x18\x04\0\0\0skip";
        assert_eq!(decode(Encoding::Zstd, &[skipped, &encoded(TEXT)[2].1[..]].concat(), 3).as_deref(), Some(TEXT));
    }

    #[test]
    fn a_window_of_zstd_is_bounded_and_counts_as_far_as_it_is_used() {
        for (log, fits) in [(ZSTD_WINDOW_LOG_MAX, true), (ZSTD_WINDOW_LOG_MAX + 1, false)] {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(log).unwrap();
            encoder.write_all(TEXT).unwrap();
            let raw = encoder.finish().unwrap();
            assert_eq!(decode(Encoding::Zstd, &raw, 5).is_some(), fits, "{log}");
            let mut decoder = Decoder::new(Encoding::Zstd).unwrap();
            drop(decoder.step(&raw));
            assert!(decoder.memory_bytes() < 512 << 10, "{}", decoder.memory_bytes());
        }
    }
}
