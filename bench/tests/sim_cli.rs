//! The simulator as a program.

use std::process::{Command, Output};

fn simulate(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_herd-simulate")).args(args).output().expect("it runs")
}

#[test]
fn a_part_of_it_is_printed_and_the_same_seed_prints_the_same() {
    let args = ["--workload", "steady", "--policy", "herd", "--policy", "random", "--seed", "5", "--requests", "80"];
    let (first, second) = (simulate(&args), simulate(&args));
    assert!(first.status.success(), "{first:?}");
    assert_eq!(first.stdout, second.stdout);
    let text = String::from_utf8(first.stdout).expect("it is text");
    assert!(text.contains("### steady") && text.contains("| **herd** |") && text.contains("| random |"), "{text}");
    assert!(!text.contains("### mixed"), "{text}");
    let other = simulate(&["--workload", "steady", "--policy", "herd", "--seed", "6", "--requests", "80"]);
    assert_ne!(text.as_bytes(), other.stdout);
}

#[test]
fn a_wrong_call_says_what_there_is() {
    let wrong = simulate(&["--workload", "nonsense"]);
    assert_eq!(wrong.status.code(), Some(64));
    let words = String::from_utf8(wrong.stderr).expect("it is text");
    assert!(words.contains("steady") && words.contains("ten-thousand"), "{words}");
    let help = simulate(&["--help"]);
    assert!(help.status.success() && !help.stdout.is_empty());
}

#[test]
fn a_report_is_written_with_its_plots() {
    let folder = std::env::temp_dir().join(format!("herd-simulate-{}", std::process::id()));
    let out = folder.to_str().expect("it is text");
    let ran = simulate(&["--workload", "steady", "--policy", "herd", "--requests", "30", "--out", out]);
    assert!(ran.status.success(), "{ran:?}");
    for file in ["README.md", "steady.svg", "steady-curves.svg"] {
        assert!(folder.join(file).is_file(), "{file}");
    }
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
}
