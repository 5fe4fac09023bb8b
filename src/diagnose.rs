//! Where the trouble is: the log of faults, the log of gradients, and the check of a backward function.

#[cfg(feature = "std")]
mod fault_log;
mod gradcheck;
mod gradient_log;
#[cfg(feature = "html")]
mod html;
mod judge;
mod table;
mod tensor_stats;

#[cfg(feature = "std")]
pub use fault_log::{Fault, FaultKind, FaultLog, FaultSource};
pub use gradcheck::{Gradcheck, GradcheckElement, GradcheckMismatch, GradcheckReport, gradcheck};
pub use gradient_log::{GradientLog, GradientRecord, LogError, TensorRecords};
pub use judge::{GradientEvent, GradientFlag, GradientRules};
pub(crate) use tensor_stats::Survey;
pub use tensor_stats::{Exponents, Losses, TensorStats};
