//! [`GradientLog`]: what the gradients of each layer were, step by step.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::mem::discriminant;

use crate::diagnose::judge::{GradientEvent, GradientFlag, GradientRules};
use crate::diagnose::tensor_stats::TensorStats;
use crate::error::Error;
use crate::float::Float;
use crate::kernel::Join;
use crate::scaled::Scaled;
use crate::squares::Squares;
use crate::view::MatRef;

/// Records the gradient of each layer at each step, and raises a [`GradientFlag`] where one explodes or vanishes.
///
/// Its text ([`Display`](fmt::Display)) is a table for the terminal; [`csv`](Self::csv), [`json_lines`](Self::json_lines)
/// (feature `serde`) and [`html`](Self::html) (feature `html`) are other forms. With feature `tracing` each record is an
/// event of level debug, each flag one of level warn.
///
/// A tensor may be missing at some steps: it then has no record there, and the table says at how many. NaN and infinities
/// are counted, and do not spoil what is said of the rest. What the log refuses it returns as an error, and stays as it
/// was: a caller that ignores the error loses nothing but that record. A record takes some hundred bytes; in a long run
/// record every so many steps.
///
/// ```
/// use nanproof::{GradientFlag, GradientLog, GradientRules};
///
/// let mut log = GradientLog::new(GradientRules::default());
/// for step in 0..10 {
///     log.record(step, "layer 1", &[0.5_f32, -0.25, 0.125])?;
/// }
/// let record = log.record(10, "layer 1", &[5e5_f32, 1e5, f32::NAN])?;
/// assert!(matches!(record.flags[..], [GradientFlag::NotFinite(1), GradientFlag::Exploding { .. }]));
/// assert_eq!(log.events().len(), 2);
///
/// // A name that is used twice in a step is an error; so is a tensor that changes its length.
/// assert!(log.record(10, "layer 1", &[0.0_f32; 3]).is_err());
/// assert!(log.record(11, "layer 1", &[0.0_f32; 4]).is_err());
/// # Ok::<(), nanproof::LogError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct GradientLog {
    rules: GradientRules,
    tensors: Vec<TensorRecords>,
    events: Vec<GradientEvent>,
    /// The last two steps and the largest root mean square in each.
    largest: [(u64, f64); 2],
}

/// A tensor of a [`GradientLog`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TensorRecords {
    /// Its name.
    pub name: String,
    /// What was recorded, in the order of steps.
    pub records: Vec<GradientRecord>,
    len: Option<usize>,
    /// In how many records in a row each unit was 0.
    silent: Option<Vec<usize>>,
    /// The last finite norms.
    norms: Vec<f64>,
}

/// What was recorded of a tensor at a step.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct GradientRecord {
    /// The step.
    pub step: u64,
    /// What the gradient holds.
    pub gradient: Option<TensorStats>,
    /// The norm of the update over that of the weights.
    pub update_ratio: Option<f64>,
    /// How many units are dead.
    pub dead_units: Option<usize>,
    /// What is remarkable.
    pub flags: Vec<GradientFlag>,
}

/// Why a [`GradientLog`] could not do what was asked. The log is as it was.
#[derive(Debug)]
#[non_exhaustive]
pub enum LogError {
    /// A tensor without a name.
    Unnamed,
    /// The tensor has a record of this kind at this step already, or one of a later step.
    Repeated {
        /// The tensor.
        name: String,
        /// The step.
        step: u64,
        /// The step of its last record.
        last: u64,
    },
    /// The tensor has another length, or another number of units, than before.
    Length {
        /// The tensor.
        name: String,
        /// The step.
        step: u64,
        /// What it has now.
        found: usize,
        /// What it had before.
        expected: usize,
    },
    /// The statistics could not be computed: [`Error::Isa`] or [`Error::UnknownIsa`].
    Statistics(Error),
    /// A file could not be written.
    #[cfg(feature = "std")]
    Write {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A form could not be made.
    Form(String),
}

impl GradientLog {
    /// An empty log.
    #[must_use]
    pub fn new(rules: GradientRules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// Records the gradient of a tensor at a step, and returns what was seen.
    ///
    /// # Errors
    /// [`LogError::Unnamed`] if the name is empty, [`LogError::Repeated`] if there is such a record already or the steps
    /// of a tensor do not ascend, [`LogError::Length`] if the tensor had another length before.
    pub fn record<T: Float>(&mut self, step: u64, name: &str, gradient: &[T]) -> Result<&GradientRecord, LogError> {
        let i = self.tensor(step, name, |record| record.gradient.is_some())?;
        check_length(self.tensors.get(i), step, gradient.len(), |tensor| tensor.len)?;
        let stats = TensorStats::of(gradient)?;

        let (rms, not_finite) = (stats.rms(), stats.not_finite());
        let largest_rms = self.meet(step, rms);
        let tensor = self.tensor_mut(i, name);
        tensor.len = Some(gradient.len());
        let mut flags = Vec::new();
        if not_finite > 0 {
            flags.push(GradientFlag::NotFinite(not_finite));
        }
        if not_finite < gradient.len() {
            flags.extend(self.rules.of_norm(stats.norm, rms, &self.tensors[i].norms, largest_rms));
            let norms = &mut self.tensors[i].norms;
            norms.push(stats.norm);
            norms.drain(..norms.len().saturating_sub(self.rules.window));
        }
        #[cfg(feature = "tracing")]
        tracing::debug!(step, tensor = name, norm = stats.norm, largest = stats.largest, not_finite, "gradient");
        self.enter(i, step, flags, |record| record.gradient = Some(stats))
    }

    /// Records how far a step moved the weights of a tensor: the norm of `after - before` over that of `before`; nothing
    /// if that is 0.
    ///
    /// About 0.001 is usual. The ratio is NaN if weights are not finite, before or after, which is a flag; it is infinite
    /// if it is too large for a number, and above 0 if anything moved.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    ///
    /// ```
    /// let mut log = nanproof::GradientLog::default();
    /// let record = log.record_update(1, "layer 1", &[3.0_f32, 4.0], &[3.0, 4.01])?;
    /// assert!((record.update_ratio.unwrap() - 0.002).abs() < 1e-6);
    /// # Ok::<(), nanproof::LogError>(())
    /// ```
    pub fn record_update<T: Float>(
        &mut self,
        step: u64,
        name: &str,
        before: &[T],
        after: &[T],
    ) -> Result<&GradientRecord, LogError> {
        let i = self.tensor(step, name, |record| record.update_ratio.is_some())?;
        check_length(self.tensors.get(i), step, before.len(), |tensor| tensor.len)?;
        if after.len() != before.len() {
            return Err(LogError::Length { name: name.into(), step, found: after.len(), expected: before.len() });
        }
        let ratio = relative_change(before, after)?;
        self.tensor_mut(i, name).len = Some(before.len());
        let not_finite = || before.iter().chain(after).filter(|x| !x.is_finite()).count();
        let flags = match ratio {
            Some(ratio) if ratio.is_nan() => Some(GradientFlag::NotFinite(not_finite())),
            ratio => ratio.and_then(|ratio| self.rules.of_update(ratio)),
        };
        let flags = flags.into_iter().collect();
        self.enter(i, step, flags, |record| record.update_ratio = ratio)
    }

    /// Records which units of a layer do nothing: those whose column is 0 in every row, of activations or of gradients.
    /// Without rows nothing is said of them.
    ///
    /// # Errors
    /// As [`record`](Self::record); [`LogError::Length`] if the number of columns changed.
    ///
    /// ```
    /// use nanproof::{GradientLog, MatRef, GradientRules};
    ///
    /// let mut log = GradientLog::new(GradientRules { dead_after: 2, ..GradientRules::default() });
    /// for step in 0..2 {
    ///     let h = [0.0_f32, 1.0, 0.0, 2.0]; // two samples a row each, two units
    ///     log.record_units(step, "layer 1", MatRef::new(&h, 2, 2).unwrap())?;
    /// }
    /// assert_eq!(log.tensors()[0].records[1].dead_units, Some(1));
    /// # Ok::<(), nanproof::LogError>(())
    /// ```
    pub fn record_units<T: Float>(
        &mut self,
        step: u64,
        name: &str,
        x: MatRef<'_, T>,
    ) -> Result<&GradientRecord, LogError> {
        let i = self.tensor(step, name, |record| record.dead_units.is_some())?;
        let units = |tensor: &TensorRecords| tensor.silent.as_ref().map(Vec::len);
        check_length(self.tensors.get(i), step, x.cols(), units)?;
        if x.rows() == 0 {
            self.tensor_mut(i, name);
            return self.enter(i, step, Vec::new(), |_| {});
        }

        let dead_after = self.rules.dead_after;
        let silent = self.tensor_mut(i, name).silent.get_or_insert_with(|| vec![0; x.cols()]);
        for (unit, silent) in silent.iter_mut().enumerate() {
            let is_silent = (0..x.rows()).all(|row| x.get(row, unit).is_none_or(|x| x.is_zero()));
            *silent = if is_silent { *silent + 1 } else { 0 };
        }
        let dead = silent.iter().filter(|&&silent| silent >= dead_after.max(1)).count();
        let flags = self.rules.of_units(dead, x.cols()).into_iter().collect();
        self.enter(i, step, flags, |record| record.dead_units = Some(dead))
    }

    /// Marks a step with a text of the caller's, such as the report of a fault: an event, and a line in the plots.
    pub fn mark(&mut self, step: u64, place: &str, text: impl fmt::Display) {
        let flag = GradientFlag::Mark(alloc::format!("{text}"));
        self.events.push(GradientEvent { tensor: place.into(), first_step: step, last_step: step, flag });
    }

    /// The tensors, in the order of their first records.
    #[must_use]
    pub fn tensors(&self) -> &[TensorRecords] {
        &self.tensors
    }

    /// All flags that were raised, in the order in which they were, and all marks.
    #[must_use]
    pub fn events(&self) -> &[GradientEvent] {
        &self.events
    }

    /// All steps that have a record, in order.
    pub(super) fn steps(&self) -> Vec<u64> {
        let records = self.tensors.iter().flat_map(|tensor| &tensor.records);
        let mut steps: Vec<u64> = records.map(|record| record.step).collect();
        steps.sort_unstable();
        steps.dedup();
        steps
    }

    /// Where the tensor of this name is, or will be, if a record of this step may be added.
    fn tensor(&self, step: u64, name: &str, is_recorded: impl Fn(&GradientRecord) -> bool) -> Result<usize, LogError> {
        if name.is_empty() {
            return Err(LogError::Unnamed);
        }
        let Some(i) = self.tensors.iter().position(|tensor| tensor.name == name) else { return Ok(self.tensors.len()) };
        match self.tensors[i].records.last() {
            Some(last) if last.step > step || last.step == step && is_recorded(last) => {
                Err(LogError::Repeated { name: name.into(), step, last: last.step })
            }
            _ => Ok(i),
        }
    }

    fn tensor_mut(&mut self, i: usize, name: &str) -> &mut TensorRecords {
        if i == self.tensors.len() {
            self.tensors.push(TensorRecords { name: name.into(), ..TensorRecords::default() });
        }
        &mut self.tensors[i]
    }

    /// The largest root mean square of this step and the one before, this one included.
    fn meet(&mut self, step: u64, rms: f64) -> f64 {
        if self.largest[1].0 != step {
            self.largest = [self.largest[1], (step, 0.0)];
        }
        self.largest[1].1 = self.largest[1].1.max(rms);
        self.largest[0].1.max(self.largest[1].1)
    }

    fn enter(
        &mut self,
        i: usize,
        step: u64,
        flags: Vec<GradientFlag>,
        set: impl FnOnce(&mut GradientRecord),
    ) -> Result<&GradientRecord, LogError> {
        let tensor = &mut self.tensors[i];
        if tensor.records.last().is_none_or(|last| last.step != step) {
            tensor.records.push(GradientRecord { step, ..GradientRecord::default() });
        }
        let before = tensor.records.len().checked_sub(2).map(|before| tensor.records[before].step);
        for flag in &flags {
            #[cfg(feature = "tracing")]
            tracing::warn!(step, tensor = tensor.name, "{flag}");
            let is_same = |event: &&mut GradientEvent| {
                event.tensor == tensor.name
                    && Some(event.last_step) == before
                    && discriminant(&event.flag) == discriminant(flag)
            };
            match self.events.iter_mut().rev().find(is_same) {
                Some(event) => event.last_step = step,
                None => {
                    let tensor = tensor.name.clone();
                    self.events.push(GradientEvent { tensor, first_step: step, last_step: step, flag: flag.clone() });
                }
            }
        }
        let last = tensor.records.len() - 1;
        let record = &mut tensor.records[last];
        record.flags.extend(flags);
        set(record);
        Ok(record)
    }
}

fn check_length(
    tensor: Option<&TensorRecords>,
    step: u64,
    found: usize,
    length: impl Fn(&TensorRecords) -> Option<usize>,
) -> Result<(), LogError> {
    match tensor.map(|tensor| (tensor, length(tensor))) {
        Some((tensor, Some(expected))) if expected != found => {
            Err(LogError::Length { name: tensor.name.clone(), step, found, expected })
        }
        _ => Ok(()),
    }
}

/// The norm of the difference over that of `before`, if that is not 0; NaN if anything is not finite.
fn relative_change<T: Float>(before: &[T], after: &[T]) -> crate::Result<Option<f64>> {
    let (one, two) = (T::one(), T::one() + T::one());
    let mut change = norm_of_change(before, after, one)?;
    if !change.mantissa.is_finite() {
        // A difference of numbers may overflow, not that of their halves.
        change = norm_of_change(before, after, one / two)?.mul(Scaled::of(two));
    }
    if !change.mantissa.is_finite() {
        return Ok(Some(f64::NAN));
    }
    let norm = Squares::of(before)?.norm();
    if norm.is_zero() {
        return Ok(None);
    }
    // A change that is small beside the weights is not none.
    let least = if change.is_zero() { 0.0 } else { f64::from_bits(1) };
    Ok(Some(change.div(norm).value().max(least)))
}

/// The norm of `factor (after - before)`.
fn norm_of_change<T: Float>(before: &[T], after: &[T], factor: T) -> crate::Result<Scaled<f64>> {
    let mut change = Squares::new();
    let mut difference = [T::zero(); 1024];
    for (before, after) in before.chunks(difference.len()).zip(after.chunks(difference.len())) {
        let difference = &mut difference[..before.len()];
        for ((d, &before), &after) in difference.iter_mut().zip(before).zip(after) {
            *d = after * factor - before * factor;
        }
        change = change.join(Squares::of(difference)?);
    }
    Ok(change.norm())
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unnamed => f.write_str("gradient log: a tensor needs a name"),
            Self::Repeated { name, step, last } if step == last => {
                write!(f, "gradient log: {name} is recorded twice at step {step}; each tensor needs a name of its own")
            }
            Self::Repeated { name, step, last } => {
                write!(f, "gradient log: {name} is recorded at step {step} after step {last}; steps must ascend")
            }
            Self::Length { name, step, found, expected } => {
                write!(f, "gradient log: {name} has {found} elements at step {step} and had {expected} before")
            }
            Self::Statistics(error) => write!(f, "gradient log: {error}"),
            #[cfg(feature = "std")]
            Self::Write { path, error } => write!(f, "gradient log: cannot write {}: {error}", path.display()),
            Self::Form(problem) => write!(f, "gradient log: {problem}"),
        }
    }
}

impl core::error::Error for LogError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Statistics(error) => Some(error),
            #[cfg(feature = "std")]
            Self::Write { error, .. } => Some(error),
            _ => None,
        }
    }
}

impl From<Error> for LogError {
    fn from(error: Error) -> Self {
        Self::Statistics(error)
    }
}
