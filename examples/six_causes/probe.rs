//! [`Probe`]: what the reports say of each operation of a step, and beside it what plain loops find.

use std::fmt;

use nanproof::{Fault, FaultLog, Index, Result, check_operation};

use crate::matrix::Matrix;

/// Looks at each operation of a step.
pub(crate) struct Probe<'a> {
    pub(crate) faults: &'a FaultLog,
    pub(crate) step: u64,
    /// The first operation that made something that is not finite of finite operands, found without the crate.
    pub(crate) truth: Option<Place>,
}

/// Where a NaN or an infinity was born.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    step: u64,
    layer: String,
    operation: &'static str,
    operand: &'static str,
    at: usize,
    /// Columns of the operand.
    pub(crate) cols: usize,
}

/// An operand and what the reports call it.
pub(crate) type Named<'a> = (&'static str, &'a Matrix);

impl Probe<'_> {
    /// Notes what a kernel reported. Anything else that is wrong is an error.
    pub(crate) fn kernel(
        &mut self,
        layer: &str,
        operation: &'static str,
        inputs: &[Named<'_>],
        output: Named<'_>,
        result: Result<()>,
    ) -> Result<()> {
        let is_finite = |(_, x): &Named<'_>| x.data.iter().all(|x| x.is_finite());
        if self.truth.is_none() && inputs.iter().all(is_finite) {
            let (operand, x) = output;
            let at = x.data.iter().position(|x| !x.is_finite());
            let (step, cols) = (self.step, x.cols);
            self.truth = at.map(|at| Place { step, layer: layer.into(), operation, operand, at, cols });
        }
        self.faults.note(self.step, layer, result).map(drop)
    }

    /// Checks what a formula of the textbook made.
    pub(crate) fn textbook(
        &mut self,
        layer: &str,
        operation: &'static str,
        inputs: &[Named<'_>],
        output: Named<'_>,
    ) -> Result<()> {
        let slices: Vec<_> = inputs.iter().map(|(name, x)| (*name, &x.data[..])).collect();
        let result = check_operation(operation, &slices, &[(output.0, &output.1.data)]);
        self.kernel(layer, operation, inputs, output, result)
    }
}

impl Place {
    /// What a report says, of an operand with so many columns.
    pub(crate) fn reported(fault: &Fault, cols: usize) -> Self {
        let at = match fault.report.index {
            Index::Cell(row, col) => row * cols + col,
            Index::At(i) => i,
            _ => usize::MAX,
        };
        let (operation, operand) = (fault.report.operation, fault.report.operand);
        Self { step: fault.step, layer: fault.layer.clone(), operation, operand, at, cols }
    }

    pub(crate) fn short(&self) -> String {
        format!("step {}, {}, {}", self.step, self.layer, self.operation)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, layer, operation, operand, at, cols } = self;
        write!(f, "step {step}, {layer}, {operation}: {operand}, row {}, column {}", at / cols, at % cols)
    }
}
