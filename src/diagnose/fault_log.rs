//! [`FaultLog`]: reports are collected over a run instead of ending it.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::finite::NonFinite;

/// Collects the reports of NaN and infinities over a step or a run, which goes on.
///
/// It keeps the first so many, and counts all of them by layer and operation. The first cause is told apart from what
/// only passed it on: see [`FaultKind`]. Threads share it by reference; a thread that panics does it no harm. A call
/// without a fault costs nothing: no lock is taken.
///
/// Memory grows with the number of different layer names and operations that had a fault, not with the number of faults.
///
/// ```
/// use nanproof::{FaultKind, FaultLog, l2_norm, tanh};
///
/// let faults = FaultLog::new(100);
/// let mut h = [0.0_f32; 3];
/// for (step, x) in [[1.0, 2.0, 3.0], [1.0, f32::NAN, 3.0]].iter().enumerate() {
///     let step = step as u64;
///     faults.note(step, "layer 1", tanh(x, &mut h))?; // Some(()), and then None
///     faults.note(step, "layer 2", l2_norm(&h))?;
/// }
/// let kinds: Vec<_> = faults.faults().iter().map(|fault| (fault.layer.clone(), fault.kind)).collect();
/// assert_eq!(kinds, [("layer 1".into(), FaultKind::InData), ("layer 2".into(), FaultKind::PassedOn)]);
/// assert_eq!(
///     faults.first_cause().unwrap().to_string(),
///     "step 1, layer 1: tanh: x[1] is NaN, passed in; 1 of 3 elements is not finite"
/// );
/// # Ok::<(), nanproof::Error>(())
/// ```
#[derive(Debug)]
pub struct FaultLog {
    keep: usize,
    state: Mutex<State>,
}

/// A report, and when and where it was made.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Fault {
    /// The step of the run.
    pub step: u64,
    /// The layer, as the caller named it.
    pub layer: String,
    /// Whether it is a cause.
    pub kind: FaultKind,
    /// What the operation reported.
    pub report: NonFinite,
}

/// Whether a fault is a cause.
///
/// A NaN that is left in the weights is met again in every step that follows. So what was passed in counts as passed on
/// if there was a fault before it in the same step, or any in the step before; after a step without a fault, what is
/// passed in is a cause again.
///
/// What was noted first counts as before: a thread that notes the result of an operation before it hands the result on
/// has its causes told apart from what other threads make of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum FaultKind {
    /// A cause: the operation made it of finite operands.
    BornHere,
    /// A cause: it was passed in, and no fault before can have made it. It came with the data or the parameters, or out
    /// of an operation that the log was not told of.
    InData,
    /// Passed in, and there was a fault before.
    PassedOn,
}

/// The faults of one operation in one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct FaultSource {
    /// The layer, as the caller named it.
    pub layer: String,
    /// The operation.
    pub operation: &'static str,
    /// How many.
    pub count: usize,
    /// How many of them are causes.
    pub causes: usize,
    /// The smallest step that has one.
    pub first_step: u64,
    /// The largest step that has one.
    pub last_step: u64,
}

#[derive(Debug, Default)]
struct State {
    total: usize,
    kept: Vec<Fault>,
    first_cause: Option<Fault>,
    /// In the order of their first faults.
    sources: Vec<FaultSource>,
    /// The last steps that had a fault: several, since threads may be at different ones.
    recent_steps: VecDeque<u64>,
}

/// How many steps with a fault are remembered.
const RECENT: usize = 64;

impl FaultLog {
    /// A log that keeps the first `keep` reports.
    #[must_use]
    pub fn new(keep: usize) -> Self {
        Self { keep, state: Mutex::default() }
    }

    /// Takes the result of an operation: notes what was not finite, and goes on. `Some` of what the operation returned,
    /// or `None` if it had a fault.
    ///
    /// # Errors
    /// Every error but [`Error::NonFinite`], as it is.
    pub fn note<R>(&self, step: u64, layer: &str, result: Result<R>) -> Result<Option<R>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Error::NonFinite(report)) => {
                self.add(step, layer, *report);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Notes a report that came another way, such as [`Clip::fault`](crate::Clip::fault).
    pub fn add(&self, step: u64, layer: &str, report: NonFinite) {
        let mut state = self.lock();
        let fault = Fault { step, layer: layer.into(), kind: state.kind(step, &report), report };
        #[cfg(feature = "tracing")]
        tracing::error!(step, layer, operation = report.operation, kind = ?fault.kind, "{report}");
        state.add(fault, self.keep);
    }

    /// Whether there was no fault.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total() == 0
    }

    /// How many faults there were.
    #[must_use]
    pub fn total(&self) -> usize {
        self.lock().total
    }

    /// The first faults, in the order in which they were noted.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        self.lock().kept.clone()
    }

    /// The cause to look at: the first one noted in the smallest step that has one.
    #[must_use]
    pub fn first_cause(&self) -> Option<Fault> {
        self.lock().first_cause.clone()
    }

    /// All faults by layer and operation, the earliest step first; within a step as they were noted.
    #[must_use]
    pub fn sources(&self) -> Vec<FaultSource> {
        let mut sources = self.lock().sources.clone();
        sources.sort_by_key(|source| source.first_step);
        sources
    }

    /// Forgets everything.
    pub fn clear(&self) {
        *self.lock() = State::default();
    }

    /// A thread that panicked cannot have left it half written in a way that matters here.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn kind(&self, step: u64, report: &NonFinite) -> FaultKind {
        let had_fault = |step| self.recent_steps.contains(&step);
        if report.is_born_here() {
            FaultKind::BornHere
        } else if had_fault(step) || step.checked_sub(1).is_some_and(had_fault) {
            FaultKind::PassedOn
        } else {
            FaultKind::InData
        }
    }

    fn add(&mut self, fault: Fault, keep: usize) {
        self.total = self.total.saturating_add(1);
        if !self.recent_steps.contains(&fault.step) {
            self.recent_steps.truncate(RECENT - 1);
            self.recent_steps.push_front(fault.step);
        }
        let Fault { step, ref layer, kind, report } = fault;
        let is_cause = kind != FaultKind::PassedOn;
        let is_same = |source: &FaultSource| source.layer == *layer && source.operation == report.operation;
        let at = self.sources.iter().position(is_same).unwrap_or_else(|| {
            let (layer, operation) = (layer.clone(), report.operation);
            self.sources.push(FaultSource { layer, operation, count: 0, causes: 0, first_step: step, last_step: step });
            self.sources.len() - 1
        });
        let source = &mut self.sources[at];
        source.count = source.count.saturating_add(1);
        source.causes = source.causes.saturating_add(usize::from(is_cause));
        source.first_step = source.first_step.min(step);
        source.last_step = source.last_step.max(step);
        if is_cause && self.first_cause.as_ref().is_none_or(|first| step < first.step) {
            self.first_cause = Some(fault.clone());
        }
        if self.kept.len() < keep {
            self.kept.push(fault);
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {}, {}: {}", self.step, self.layer, self.report)
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BornHere => "born here",
            Self::InData => "in the data",
            Self::PassedOn => "passed on",
        })
    }
}

impl fmt::Display for FaultSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { layer, operation, count, causes, first_step, last_step } = self;
        match count {
            1 => write!(f, "{layer}: {operation}: 1 fault, step {first_step}")?,
            _ => write!(f, "{layer}: {operation}: {count} faults, steps {first_step} to {last_step}")?,
        }
        match causes {
            0 => f.write_str(", passed on"),
            1 => f.write_str(", 1 cause"),
            _ => write!(f, ", {causes} causes"),
        }
    }
}

/// The first cause, and the faults by layer and operation.
impl fmt::Display for FaultLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.first_cause() else { return f.write_str("no faults") };
        write!(f, "first cause, {}: {first}", first.kind)?;
        self.sources().iter().try_for_each(|source| write!(f, "\n{source}"))
    }
}
