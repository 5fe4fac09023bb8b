//! The forms of a [`GradientLog`] that are text: a table for the terminal, CSV, lines of JSON.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{self, Write};

#[cfg(feature = "serde")]
use crate::diagnose::gradient_log::LogError;
use crate::diagnose::gradient_log::{GradientLog, GradientRecord, TensorRecords};
use crate::diagnose::tensor_stats::TensorStats;

/// Events that the table lists.
const EVENTS: usize = 20;

/// One line a tensor, of its last record, and then the events.
impl fmt::Display for GradientLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = self.steps();
        let (Some(first), Some(last)) = (steps.first(), steps.last()) else {
            return f.write_str("gradient log: no records");
        };
        let width = self.tensors().iter().map(|tensor| tensor.name.chars().count()).max().unwrap_or(0).max(6);
        writeln!(f, "gradients, steps {first} to {last}; the columns are of each tensor's last record")?;
        write!(f, "{:width$} {:>9} {:>9} {:>9} {:>9} {:>9}", "tensor", "elements", "norm", "mean", "std", "largest")?;
        write!(f, " {:>7} {:>7} {:>7} {:>9} {:>6}  flags", "zeros", "not fin", "f16 -", "update", "dead")?;
        for tensor in self.tensors() {
            write!(f, "\n{:width$} {}", tensor.name, line(tensor, steps.len()))?;
        }
        for event in self.events().iter().take(EVENTS) {
            write!(f, "\n{event}")?;
        }
        match self.events().len().saturating_sub(EVENTS) {
            0 => Ok(()),
            rest => write!(f, "\nand {rest} more"),
        }
    }
}

/// The columns of a tensor, after its name.
fn line(tensor: &TensorRecords, steps: usize) -> String {
    let stats = tensor.last_gradient().cloned().unwrap_or_default();
    let share = |count: u64| format!("{:.1} %", 100.0 * count as f64 / (stats.len as f64).max(1.0));
    let f16 = stats.exponents.f16();
    let number = |x: Option<f64>| x.map_or("-".to_string(), |x| format!("{x:.2e}"));
    let last = |f: &dyn Fn(&GradientRecord) -> Option<f64>| tensor.records.iter().rev().find_map(f);
    let mut flags: Vec<String> =
        tensor.records.last().map_or(Vec::new(), |record| record.flags.iter().map(ToString::to_string).collect());
    match steps - tensor.records.len() {
        0 => {}
        missing => flags.push(format!("missing at {missing} of {steps} steps")),
    }
    let columns = [
        format!("{:>9}", stats.len),
        format!("{:>9.2e}", stats.norm),
        format!("{:>9.1e}", stats.mean),
        format!("{:>9.2e}", stats.std),
        format!("{:>9.2e}", stats.largest),
        format!("{:>7}", share(stats.zeros as u64)),
        format!("{:>7}", stats.not_finite()),
        format!("{:>7}", share(f16.overflow + f16.flushed)),
        format!("{:>9}", number(last(&|record| record.update_ratio))),
        format!(
            "{:>6}",
            last(&|record| record.dead_units.map(|dead| dead as f64)).map_or("-".to_string(), |dead| dead.to_string())
        ),
    ];
    format!("{}  {}", columns.join(" "), flags.join("; "))
}

impl TensorRecords {
    /// The last gradient that was recorded.
    pub(super) fn last_gradient(&self) -> Option<&TensorStats> {
        self.records.iter().rev().find_map(|record| record.gradient.as_ref())
    }
}

impl GradientLog {
    /// The records as comma-separated values, the first line the names of the columns. What was not recorded is empty.
    ///
    /// ```
    /// let mut log = nanproof::GradientLog::default();
    /// log.record(1, "layer 1", &[3.0_f32, 4.0])?;
    /// let csv = log.csv();
    /// assert!(csv.lines().nth(1).unwrap().starts_with("1,layer 1,2,3.5,0.5,5,3,4,0,0,0,0,0,"));
    /// # Ok::<(), nanproof::LogError>(())
    /// ```
    #[must_use]
    pub fn csv(&self) -> String {
        let mut csv = String::from(
            "step,tensor,elements,mean,std,norm,smallest,largest,zeros,subnormals,nan,pos_inf,neg_inf,\
             f16_overflow,f16_subnormal,f16_flushed,bf16_overflow,bf16_subnormal,bf16_flushed,\
             update_ratio,dead_units,flags\n",
        );
        for (name, record) in self.each_record() {
            let gradient = record.gradient.as_ref().map_or(",".repeat(16), gradient_columns);
            let update = record.update_ratio.map_or(String::new(), |ratio| ratio.to_string());
            let dead = record.dead_units.map_or(String::new(), |dead| dead.to_string());
            let flags = record.flags.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            let fields = [&record.step.to_string(), &quoted(name), &gradient, &update, &dead, &quoted(&flags)];
            // Writing to a string does not fail.
            let _ = writeln!(csv, "{}", fields.map(String::as_str).join(","));
        }
        csv
    }

    /// The records as lines of JSON, an object each. What JSON has no number for (NaN, infinities) is `null`.
    ///
    /// # Errors
    /// [`LogError::Form`](crate::LogError::Form), which no record is known to cause.
    ///
    /// ```
    /// let mut log = nanproof::GradientLog::default();
    /// log.record(1, "layer 1", &[3.0_f32, 4.0])?;
    /// assert!(log.json_lines()?.starts_with(r#"{"tensor":"layer 1","step":1,"gradient":{"len":2,"mean":3.5,"#));
    /// # Ok::<(), nanproof::LogError>(())
    /// ```
    #[cfg(feature = "serde")]
    pub fn json_lines(&self) -> Result<String, LogError> {
        #[derive(serde::Serialize)]
        struct Line<'a> {
            tensor: &'a str,
            #[serde(flatten)]
            record: &'a GradientRecord,
        }
        let mut lines = String::new();
        for (tensor, record) in self.each_record() {
            let line = serde_json::to_string(&Line { tensor, record });
            lines.push_str(&line.map_err(|error| LogError::Form(error.to_string()))?);
            lines.push('\n');
        }
        Ok(lines)
    }

    /// Each record with the name of its tensor, by step and then by tensor.
    fn each_record(&self) -> Vec<(&str, &GradientRecord)> {
        let records = |tensor: &'_ TensorRecords| tensor.records.len();
        let mut all: Vec<_> = Vec::with_capacity(self.tensors().iter().map(records).sum());
        for tensor in self.tensors() {
            all.extend(tensor.records.iter().map(|record| (tensor.name.as_str(), record)));
        }
        all.sort_by_key(|(_, record)| record.step);
        all
    }
}

fn gradient_columns(stats: &TensorStats) -> String {
    let TensorStats { len, mean, std, norm, smallest, largest, zeros, subnormals, nan, pos_inf, neg_inf, exponents } =
        stats;
    let (f16, bf16) = (exponents.f16(), exponents.bf16());
    let losses = [f16, bf16].map(|loss| format!("{},{},{}", loss.overflow, loss.subnormal, loss.flushed)).join(",");
    format!("{len},{mean},{std},{norm},{smallest},{largest},{zeros},{subnormals},{nan},{pos_inf},{neg_inf},{losses}")
}

/// A field of CSV (RFC 4180).
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field.into() }
}
