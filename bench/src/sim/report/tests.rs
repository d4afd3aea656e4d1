use super::*;
use crate::sim::policy::POLICIES;
use crate::sim::svg::tests::assert_well_formed;
use crate::sim::workload::WORKLOADS;

fn plan(workloads: &[&str], requests: usize) -> Plan {
    Plan {
        workloads: WORKLOADS.iter().filter(|workload| workloads.contains(&workload.name)).collect(),
        policies: POLICIES.iter().collect(),
        seeds: vec![1, 2],
        requests: Some(requests),
    }
}

fn files(plan: &Plan) -> Vec<String> {
    let cells = plan.run();
    let report = Report { plan, cells: &cells };
    let plots = plan.workloads.iter().zip(&cells).flat_map(|(workload, row)| {
        let plots = [report.bars(workload, row), report.curves(workload, row)];
        for plot in &plots {
            assert_well_formed(plot);
        }
        plots
    });
    plots.chain([report.markdown(Some("## Validation\n"))]).collect()
}

#[test]
fn the_same_seeds_give_the_same_bytes() {
    let plan = plan(&["steady", "models", "agents"], 60);
    assert_eq!(files(&plan), files(&plan));
}

#[test]
fn every_table_has_a_cell_for_every_heading() {
    let markdown = files(&plan(&["steady", "laptops"], 40)).pop().unwrap();
    let mut columns = 0;
    let mut tables = 0;
    for line in markdown.lines() {
        let cells = if line.starts_with('|') { line.matches('|').count() - 1 } else { 0 };
        assert!(columns == 0 || cells == 0 || cells == columns, "{line}");
        tables += usize::from(columns == 0 && cells > 0);
        columns = cells;
    }
    assert_eq!(tables, 3, "{markdown}");
    assert!(markdown.contains("## Validation") && !markdown.contains("NaN"), "{markdown}");
}
