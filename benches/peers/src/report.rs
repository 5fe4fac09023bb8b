//! Results as comma-separated values or as tables.

use std::cmp::Ordering;

use crate::measure::{Contender, Effort, interleaved};

/// The name of our own rows.
pub const NANPROOF: &str = "nanproof";

/// The name of the rows that say what the machine can do at best; other limits begin with it.
pub const LIMIT: &str = "limit";

/// A case with what is measured in it.
pub struct Case<'a> {
    pub name: String,
    /// Work of one call of a peer.
    pub work: f64,
    /// The unit of work a nanosecond.
    pub unit: &'static str,
    pub contenders: Vec<Contender<'a>>,
}

struct Row {
    peer: String,
    /// Time of a call; of a limit, the time that the case would take at that limit.
    min_ns: f64,
    rate: f64,
}

impl Row {
    fn is_limit(&self) -> bool {
        self.peer.starts_with(LIMIT)
    }
}

/// Our rate beside the best peer's.
struct Standing {
    case: String,
    ours: f64,
    best: f64,
    best_peer: String,
}

impl Standing {
    fn ratio(&self) -> f64 {
        self.ours / self.best
    }
}

/// Prints each case as soon as it is measured.
pub struct Report {
    csv: bool,
    threads: usize,
    effort: Effort,
    standings: Vec<Standing>,
}

impl Report {
    pub fn new(csv: bool, threads: usize, effort: Effort) -> Self {
        if csv {
            println!("case,peer,threads,min_ns,rate,unit");
        }
        Self { csv, threads, effort, standings: Vec::new() }
    }

    /// Measures the case and prints it.
    pub fn measure(&mut self, mut case: Case<'_>) {
        let times = interleaved(&mut case.contenders, self.effort);
        let rows = case.contenders.iter().zip(times).map(|(contender, time)| {
            let rate = contender.work / time;
            Row { peer: contender.name.clone(), min_ns: case.work / rate, rate }
        });
        let mut rows: Vec<Row> = rows.collect();
        if self.csv {
            self.print_csv(&case, &rows);
        } else {
            rows.sort_by(fastest_first);
            self.print_table(&case, &rows);
        }
    }

    fn print_csv(&self, case: &Case<'_>, rows: &[Row]) {
        for Row { peer, min_ns, rate } in rows {
            println!("{},{peer},{},{min_ns:.1},{rate:.3},{}", case.name, self.threads, case.unit);
        }
    }

    fn print_table(&mut self, case: &Case<'_>, rows: &[Row]) {
        println!("{}", case.name);
        let limit = rows.iter().find(|row| row.peer == LIMIT);
        for Row { peer, min_ns, rate } in rows {
            let share =
                limit.map_or(String::new(), |limit| format!("{:4.0} % of the limit", 100.0 * rate / limit.rate));
            println!("    {peer:<22} {rate:8.2} {:<8} {min_ns:13.0} ns {share}", case.unit);
        }
        let ours = rows.iter().find(|row| row.peer == NANPROOF);
        let best = rows.iter().find(|row| row.peer != NANPROOF && !row.is_limit());
        if let (Some(ours), Some(best)) = (ours, best) {
            let standing =
                Standing { case: case.name.clone(), ours: ours.rate, best: best.rate, best_peer: best.peer.clone() };
            println!("    = {:.2} times the best peer, {}\n", standing.ratio(), best.peer);
            self.standings.push(standing);
        }
    }

    /// Prints the standing of every case, the mean and the cases that are behind.
    pub fn finish(self) {
        if self.standings.is_empty() {
            return;
        }
        println!("{:<28} {NANPROOF:>10} {:>10} {:>7}  best peer", "case", "best peer", "ratio");
        for standing in &self.standings {
            let Standing { case, ours, best, best_peer } = standing;
            println!("{case:<28} {ours:10.2} {best:10.2} {:7.2}  {best_peer}", standing.ratio());
        }
        let logarithms: f64 = self.standings.iter().map(|standing| standing.ratio().ln()).sum();
        println!("\ngeometric mean of the ratios: {:.3}", (logarithms / self.standings.len() as f64).exp());
        let mut behind: Vec<&Standing> = self.standings.iter().filter(|standing| standing.ratio() < 1.0).collect();
        behind.sort_by(|a, b| a.ratio().total_cmp(&b.ratio()));
        println!("under 1.00: {} of {}", behind.len(), self.standings.len());
        for standing in behind {
            println!("    {:.3}  {} ({})", standing.ratio(), standing.case, standing.best_peer);
        }
    }
}

/// The limits, as they come, before the peers.
fn fastest_first(a: &Row, b: &Row) -> Ordering {
    match (a.is_limit(), b.is_limit()) {
        (true, true) => Ordering::Equal,
        (false, false) => b.rate.total_cmp(&a.rate),
        (a, b) => b.cmp(&a),
    }
}
