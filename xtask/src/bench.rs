//! `cargo xtask bench`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::install;
use crate::shell::{announce, built, cargo, output, run_quietly};

/// One line of the table.
struct Row {
    name: String,
    mean_ns: f64,
    deviation_ns: f64,
}

/// Runs the benchmarks and prints one table.
pub fn bench() -> Result<()> {
    announce("Building and running the benchmarks");
    run_quietly(cargo().args(["bench", "-p", "e2ee", "--benches"]))?;
    let target = built()?;
    let target = target.parent().context("no target folder")?;
    let mut rows = Vec::new();
    collect(&target.join("criterion"), &mut rows)?;
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    announce("Building the bridge to measure what a ghost costs");
    install::install(&install::FOR_DEMO)?;
    run_quietly(cargo().args(["build", "--release", "-p", "bridge"]))?;
    let mut footprint = cargo();
    footprint.args(["run", "--quiet", "-p", "tests", "--bin", "footprint"]);
    let footprint = output(footprint.env("GEPHYRA_BIN", target.join("release/gephyra")))?;
    println!("{:<48} {:>14} {:>12}", "what", "mean", "± deviation");
    for Row { name, mean_ns, deviation_ns } in rows {
        println!("{name:<48} {:>14} {:>12}", time(mean_ns), time(deviation_ns));
    }
    for (name, value) in footprint.lines().filter_map(|line| line.split_once('\t')) {
        println!("{name:<48} {value:>14}");
    }
    Ok(())
}

/// Finds the newest estimates of every benchmark below a folder.
fn collect(dir: &Path, rows: &mut Vec<Row>) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name == "new") {
            rows.extend(read_row(&path));
        } else if path.is_dir() {
            collect(&path, rows)?;
        }
    }
    Ok(())
}

fn read_row(dir: &Path) -> Option<Row> {
    let read = |file: &str| -> Option<Value> {
        serde_json::from_str(&fs::read_to_string(dir.join(file)).ok()?).ok()
    };
    let estimates = read("estimates.json")?;
    let point = |name: &str| estimates.get(name)?.get("point_estimate")?.as_f64();
    let name = read("benchmark.json")?.get("full_id")?.as_str()?.to_owned();
    Some(Row { name, mean_ns: point("mean")?, deviation_ns: point("std_dev")? })
}

fn time(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.2} µs", ns / 1e3),
        ns if ns < 1e9 => format!("{:.2} ms", ns / 1e6),
        ns => format!("{:.2} s", ns / 1e9),
    }
}
