//! The choice of a node: deciding and claiming, for fleets of any size.

use criterion::Criterion;
use herd_bench::load::choose::{FLEETS, body, choose, fleet, read};
use herd_bench::load::queue::{Crowd, NODES, WAITING};
use herd_core::decide::Policy;

fn benches(criterion: &mut Criterion) {
    let (profile, policy) = (read(&body(1 << 10)), Policy::default());
    let mut group = criterion.benchmark_group("choose");
    for nodes in FLEETS {
        let (fleet, mut ticket) = (fleet(nodes), 0);
        group.bench_function(nodes.to_string(), |bencher| {
            bencher.iter(|| {
                ticket += 1;
                choose(&fleet, &profile, &policy, ticket)
            });
        });
    }
    group.finish();
    let mut crowd = Crowd::new(WAITING, NODES);
    criterion.bench_function("pass over a crowd", |bencher| bencher.iter(|| crowd.pass()));
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    benches(&mut criterion);
    criterion.final_summary();
}
