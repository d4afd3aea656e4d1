//! Reading a request's body: what a choice needs of it.

use criterion::{BenchmarkId, Criterion, Throughput};
use herd_bench::load::choose::{body, read};

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("inspect");
    for bytes in [1 << 10, 64 << 10, 1 << 20, 32 << 20] {
        let body = body(bytes);
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_with_input(BenchmarkId::from_parameter(bytes), &body, |bencher, body| bencher.iter(|| read(body)));
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    benches(&mut criterion);
    criterion.final_summary();
}
