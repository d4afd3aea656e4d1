//! Plots as SVG, written by hand: few shapes, no script, no font of their own.

/// Width of every plot.
const WIDTH: f64 = 860.0;
/// Left of the bars, for names.
const NAMES: f64 = 190.0;
/// Right of the bars, for numbers.
const NUMBERS: f64 = 90.0;
const ROW: f64 = 30.0;
const HEAD: f64 = 52.0;

/// What a policy is drawn as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hue {
    /// herd.
    Own,
    /// The peer.
    Peer,
    /// Others.
    Other,
}

impl Hue {
    fn color(self) -> &'static str {
        match self {
            Self::Own => "#2f6f4f",
            Self::Peer => "#b5532a",
            Self::Other => "#8a93a0",
        }
    }
}

/// One policy in a plot of bars: least, mean and most over the seeds, of two measures.
#[derive(Debug, Clone)]
pub(crate) struct Bar {
    /// Its name.
    pub(crate) name: String,
    /// How it is drawn.
    pub(crate) hue: Hue,
    /// The mean.
    pub(crate) mean: [f64; 3],
    /// The 99th percentile.
    pub(crate) p99: [f64; 3],
}

/// Means and 99th percentiles of a workload in seconds, on a logarithmic scale; `bound` is drawn as a line.
pub(crate) fn bars(title: &str, bars: &[Bar], bound: f64) -> String {
    let height = HEAD + ROW * bars.len() as f64 + 34.0;
    let all = || bars.iter().flat_map(|bar| bar.mean.into_iter().chain(bar.p99)).chain([bound]);
    let positive = || all().filter(|value| *value > 0.0);
    let (low, high) = (positive().fold(f64::MAX, f64::min) * 0.7, positive().fold(0.0, f64::max) * 1.15);
    let scale = Scale { low: low.min(high), high, from: NAMES, to: WIDTH - NUMBERS };
    let mut svg = open(title, height);
    ticks(&mut svg, &scale, height);
    if bound > 0.0 {
        let x = scale.x(bound);
        line(&mut svg, (x, HEAD - 6.0), (x, height - 24.0), "#c2a200", 1.5);
        text(&mut svg, (x + 3.0, HEAD - 8.0), "start", "#7a6600", "bound of the mean");
    }
    for (row, bar) in bars.iter().enumerate() {
        let y = HEAD + ROW * row as f64;
        text(&mut svg, (NAMES - 8.0, y + 16.0), "end", "#222", &bar.name);
        whisker(&mut svg, &scale, y + 3.0, bar.mean, (bar.hue.color(), 1.0));
        whisker(&mut svg, &scale, y + 14.0, bar.p99, (bar.hue.color(), 0.45));
        let numbers = format!("{} / {}", seconds(bar.mean[1]), seconds(bar.p99[1]));
        text(&mut svg, (WIDTH - 6.0, y + 16.0), "end", "#222", &numbers);
    }
    svg.push_str("</svg>\n");
    svg
}

/// One policy in a plot of curves.
#[derive(Debug, Clone)]
pub(crate) struct Curve {
    /// Its name.
    pub(crate) name: String,
    /// Its colour.
    pub(crate) color: &'static str,
    /// Seconds at every hundredth.
    pub(crate) hundredths: Vec<f64>,
}

/// Which share of the requests is complete within which time.
pub(crate) fn curves(title: &str, curves: &[Curve]) -> String {
    const HEIGHT: f64 = 360.0;
    let values = || curves.iter().flat_map(|curve| curve.hundredths.iter().copied()).filter(|value| *value > 0.0);
    let (low, high) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
    let scale = Scale { low: low.min(high), high, from: 60.0, to: WIDTH - 20.0 };
    let y = |share: f64| HEIGHT - 34.0 - share * (HEIGHT - HEAD - 40.0);
    let mut svg = open(title, HEIGHT);
    ticks(&mut svg, &scale, HEIGHT);
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        line(&mut svg, (scale.from, y(share)), (scale.to, y(share)), "#e3e6ea", 1.0);
        text(&mut svg, (scale.from - 6.0, y(share) + 4.0), "end", "#555", &format!("{:.0} %", share * 100.0));
    }
    for (number, curve) in curves.iter().enumerate() {
        let mut points = String::new();
        for (place, value) in curve.hundredths.iter().enumerate() {
            let share = (place + 1) as f64 / curve.hundredths.len() as f64;
            put!(points, "{:.1},{:.1} ", scale.x(*value), y(share));
        }
        let color = curve.color;
        putln!(svg, r#"<polyline fill="none" stroke="{color}" stroke-width="2" points="{}"/>"#, points.trim_end());
        text(&mut svg, (WIDTH - 30.0, HEAD + 170.0 + 16.0 * number as f64), "end", color, &curve.name);
    }
    svg.push_str("</svg>\n");
    svg
}

/// A logarithmic scale from values to places.
struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    fn x(&self, value: f64) -> f64 {
        let span = (self.high / self.low).ln();
        let share = if span > 0.0 { (value.max(self.low) / self.low).ln() / span } else { 0.0 };
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }
}

fn open(title: &str, height: f64) -> String {
    let mut svg = format!(
        concat!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" "#,
            r#"font-family="system-ui, sans-serif" font-size="12">"#,
            "\n",
            r##"<rect width="{w}" height="{h}" fill="#ffffff"/>"##,
            "\n"
        ),
        w = WIDTH,
        h = height
    );
    putln!(svg, r##"<text x="12" y="22" font-size="15" fill="#111">{}</text>"##, escape(title));
    svg
}

/// Marks at 1, 2 and 5 of each power of ten.
fn ticks(svg: &mut String, scale: &Scale, height: f64) {
    for power in -3..=5 {
        for digit in [1.0, 2.0, 5.0] {
            let value = digit * 10.0_f64.powi(power);
            if (scale.low..=scale.high).contains(&value) {
                let x = scale.x(value);
                line(svg, (x, HEAD - 6.0), (x, height - 24.0), "#e3e6ea", 1.0);
                text(svg, (x, height - 8.0), "middle", "#555", &format!("{} s", seconds(value)));
            }
        }
    }
}

/// A bar up to the mean, and a line from the least to the most.
fn whisker(svg: &mut String, scale: &Scale, y: f64, [least, mean, most]: [f64; 3], (color, opacity): (&str, f64)) {
    let width = (scale.x(mean) - scale.from).max(0.5);
    putln!(
        svg,
        r#"<rect x="{:.1}" y="{y:.1}" width="{width:.1}" height="9" fill="{color}" fill-opacity="{opacity}"/>"#,
        scale.from
    );
    line(svg, (scale.x(least), y + 4.5), (scale.x(most), y + 4.5), "#111", 1.2);
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), color: &str, width: f64) {
    putln!(
        svg,
        r#"<line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" stroke="{color}" stroke-width="{width}"/>"#,
        from.0,
        from.1,
        to.0,
        to.1
    );
}

fn text(svg: &mut String, at: (f64, f64), anchor: &str, color: &str, words: &str) {
    putln!(
        svg,
        r#"<text x="{:.1}" y="{:.1}" text-anchor="{anchor}" fill="{color}">{}</text>"#,
        at.0,
        at.1,
        escape(words)
    );
}

/// Seconds with about three digits.
pub(crate) fn seconds(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value if value >= 1.0 => format!("{value:.2}"),
        value => {
            let text = format!("{value:.3}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    }
}

fn escape(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
pub(crate) mod tests;
