//! The rows of `FAILURES.md` that need no process, as named sequences.

use Happening::*;

use super::*;

/// One row: nodes, whether the answer is streamed, what happens, and what is to come of it: HTTP status (0 = none),
/// nodes asked, and status of the trace.
type Row = (&'static str, usize, bool, &'static [Happening], u16, usize, Status);

const COMPLETES: [Happening; 3] = [Answers(200), Bytes, EndsWhole];

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("the node refuses the connection, another serves", 2, true, &[Refuses, COMPLETES[0], COMPLETES[1], COMPLETES[2]], 200, 2, Status::Completed),
    ("the node refuses the connection, no other", 1, true, &[Refuses], 502, 1, Status::Failed),
    ("the node does not take the connection, another serves", 2, true, &[ConnectTimesOut, Answers(200), Bytes, EndsWhole], 200, 2, Status::Completed),
    ("the node does not take the connection, no other", 1, true, &[ConnectTimesOut], 504, 1, Status::Failed),
    ("the node answers 400", 2, true, &[Answers(400), Bytes, EndsWhole], 400, 1, Status::Failed),
    ("the node answers 404, another serves", 2, true, &[Answers(404), Answers(200), Bytes, EndsWhole], 200, 2, Status::Completed),
    ("the node answers 404, no other", 1, true, &[Answers(404), EndsWhole], 404, 1, Status::Failed),
    ("the node answers 500, another serves", 2, true, &[Answers(500), Answers(200), Bytes, EndsWhole], 200, 2, Status::Completed),
    ("the node answers 500, no other", 1, true, &[Answers(500), EndsWhole], 500, 1, Status::Failed),
    ("the node is busy (503), another serves", 2, true, &[Answers(503), Answers(200), Bytes, EndsWhole], 200, 2, Status::Completed),
    ("the node is busy (503), no other", 1, true, &[Answers(503), SlotFrees, Answers(503), SlotFrees, Answers(503), EndsWhole], 503, 3, Status::Failed),
    ("reset before the answer, another serves", 2, true, &[Resets, Answers(200), Bytes, EndsWhole], 200, 2, Status::Completed),
    ("reset before the answer, no other", 1, true, &[Resets], 502, 1, Status::Failed),
    ("silent before the answer, another serves", 2, true, &[StaysSilent, Answers(200), Bytes, EndsWhole], 200, 2, Status::Completed),
    ("silent before the answer, no other", 1, true, &[StaysSilent], 504, 1, Status::Failed),
    ("the connection to the node breaks in a stream", 2, true, &[Answers(200), Bytes, Resets], 200, 1, Status::Incomplete),
    ("a stream ends cleanly without its last word", 2, true, &[Answers(200), Bytes, EndsTorn], 200, 1, Status::Incomplete),
    ("a stream stops and the node stays silent", 2, true, &[Answers(200), Bytes, StaysSilent], 200, 1, Status::Reaped),
    ("the connection to the node breaks in a whole answer, another serves", 2, false, &[Answers(200), Bytes, Resets, Answers(200), Bytes, EndsWhole], 200, 2, Status::Completed),
    ("the connection to the node breaks in a whole answer, no other", 1, false, &[Answers(200), Bytes, Resets], 502, 1, Status::Incomplete),
    ("a whole answer is not whole, another serves", 2, false, &[Answers(200), Bytes, EndsTorn, Answers(200), Bytes, EndsWhole], 200, 2, Status::Completed),
    ("a whole answer is not whole, no other", 1, false, &[Answers(200), Bytes, EndsTorn], 502, 1, Status::Incomplete),
    ("a whole answer stops and the node stays silent, no other", 1, false, &[Answers(200), Bytes, StaysSilent], 504, 1, Status::Reaped),
    ("the client leaves before the answer", 2, true, &[Leaves], 0, 1, Status::ClientDisconnected),
    ("the client leaves in the answer", 2, true, &[Answers(200), Bytes, Leaves], 200, 1, Status::ClientDisconnected),
    ("no node has the model, and none may be pulled", 0, true, &[], 404, 0, Status::Rejected),
    ("herd stops before the answer begins, and it does not in time", 1, true, &[Stopping], 503, 1, Status::Failed),
    ("herd stops in a stream, and it does not end in time", 1, true, &[Answers(200), Bytes, Stopping], 200, 1, Status::Incomplete),
];

#[test]
fn each_row_of_the_failure_table_comes_out_as_it_says() {
    for (row, nodes, stream, happenings, http_status, asked, status) in ROWS {
        let universe = Universe::new(*nodes);
        let mut exchange = universe.exchange(if *stream { STREAM } else { WHOLE });
        universe.drive(&mut exchange, happenings);
        let record = exchange.record();
        let came = (record.http_status, record.attempts.len(), record.known_status());
        assert_eq!(came, (*http_status, *asked, Some(*status)), "{row}: {record:#?} {:?}", universe.actions);
        assert_eq!(universe.in_flight(), 0, "{row}");
    }
}

/// Rows that name what only processes show: framing, sockets, queues of many, pulls and drains.
#[test]
fn each_row_here_is_one_of_the_failure_table() {
    let table = include_str!("../../../../FAILURES.md");
    for (row, ..) in ROWS {
        assert!(table.contains(&format!("| {row} |")), "FAILURES.md has no row {row:?}");
    }
}
