//! What to do with a NaN: the places to look at, in the order in which one would. There is no code in this module.
//!
//! # 1. Read the report
//!
//! Every operation of this crate that gives a NaN or an infinity says so, with the place:
//!
//! ```
//! use nanproof::{MatMut, MatRef, softmax};
//!
//! let logits = [1.0_f32, 2.0, f32::NAN, 0.5];
//! let mut p = [0.0; 4];
//! let error = softmax(MatRef::new(&logits, 2, 2)?, MatMut::new(&mut p, 2, 2)?).unwrap_err();
//! assert_eq!(error.to_string(), "softmax: x[1, 0] is NaN, passed in; 1 of 4 elements is not finite");
//! # Ok::<(), nanproof::Error>(())
//! ```
//!
//! - **passed in**: the operand was bad before. The cause is further up: go to 2.
//! - **born here: overflow**: the true result is too large for the type. Of a matrix product, a sum, a dot product or a norm
//!   the largest term is named: one huge factor is a weight or an activation that has grown (go to 4), many middling ones
//!   are a missing scale (a layer's initialisation, the `1 / sqrt(d)` of attention).
//! - **born here: division by zero**, **no number is the answer**: a formula met a pole. Go to 5.
//!
//! The first index and the counts say what to suspect: the layer if all elements are bad, a sample if one row is, a unit
//! if one column is. A `-inf` logit, a masked entry or an ignored target raise nothing; if a NaN lies behind them,
//! it is not read.
//!
//! # 2. Find the first
//!
//! A NaN spreads within a step to every gradient, and by way of the weights to every step that follows. [`FaultLog`]
//! collects all reports, and tells the first cause from what passed it on:
//!
//! ```
//! use nanproof::{FaultLog, l2_norm, relu, sum};
//!
//! let faults = FaultLog::new(100);
//! let (mut h, mut y) = ([0.0_f32; 3], [0.0_f32; 3]);
//! let step = 17;
//! faults.note(step, "layer 1", relu(&[1.0, f32::INFINITY, 2.0], &mut h))?;
//! faults.note(step, "layer 2", relu(&h, &mut y))?;
//! faults.note(step, "loss", sum(&y))?;
//! let first = faults.first_cause().unwrap();
//! assert_eq!((first.step, first.layer.as_str(), first.report.operation), (17, "layer 1", "relu"));
//! # Ok::<(), nanproof::Error>(())
//! ```
//!
//! If the first cause is [in the data](crate::FaultKind::InData), call [`check_finite`] on the batch when it is loaded
//! and on the parameters when they are: a file with a missing value and a damaged checkpoint look the same from inside.
//!
//! # 3. Check the formulas of your own
//!
//! What you wrote yourself is checked by [`check_operation`], with the same report:
//!
//! ```
//! use nanproof::check_operation;
//!
//! let x = [2.0_f32, 100.0];
//! let e = x.map(f32::exp);
//! let error = check_operation("my softmax", &[("x", &x)], &[("e", &e)]).unwrap_err();
//! assert_eq!(error.to_string(), "my softmax: e[1] is +Inf, born here: overflow; 1 of 2 elements is not finite");
//! ```
//!
//! and its gradient by [`gradcheck`], which names the worst element:
//!
//! ```
//! use nanproof::{Gradcheck, gradcheck};
//!
//! let x = [0.5_f64, -2.0];
//! let gradient = x.map(|x| 2.0 * x);
//! gradcheck(Gradcheck::default(), &x, &gradient, |x| x.iter().map(|x| x * x).sum())?;
//! # Ok::<(), nanproof::Error>(())
//! ```
//!
//! # 4. Look at the steps before
//!
//! Most overflows announce themselves. [`GradientLog`] records what each layer's gradient holds, and flags what explodes
//! or vanishes, updates that are out of proportion to the weights, and units that are dead. Print it, or open its page
//! (feature `html`):
//!
//! ```
//! use nanproof::{GradientFlag, GradientLog, GradientRules};
//!
//! let mut log = GradientLog::new(GradientRules::default());
//! for (step, scale) in [1.0_f32, 1.2, 0.9, 1.1, 40.0].into_iter().enumerate() {
//!     let gradient = [0.1 * scale, -0.2 * scale];
//!     log.record(step as u64, "layer 1", &gradient)?;
//! }
//! assert!(matches!(log.events()[0].flag, GradientFlag::Exploding { .. }));
//! assert_eq!(log.events()[0].first_step, 4);
//! println!("{log}");
//! # Ok::<(), nanproof::LogError>(())
//! ```
//!
//! An explosion that begins in the last layer and moves down is a loss or a learning rate; one that begins in the first
//! layers is depth or initialisation. Before you train in `f16` or `bf16`, [`TensorStats::exponents`] says how many
//! elements would overflow or be flushed to 0, which is what [`DynamicLossScale`] is for.
//!
//! # 5. Remove the cause
//!
//! | cause | how it shows | remedy |
//! |---|---|---|
//! | exploding gradients | [`GradientFlag::Exploding`] some steps before an overflow | [`clip_by_global_norm`], [`clip_by_norm`], [`clip_unitwise`] |
//! | initialisation | overflow or [`GradientFlag::Vanishing`] in the first step | weights from `-b` to `b`: `b = sqrt(6 / inputs)` for relu (He), `b = sqrt(6 / (inputs + outputs))` for tanh (Glorot) |
//! | limits of floating point | overflow in an `exp`, `ln` of 0, or `Inf / Inf` | [`softmax`], [`log_softmax`], [`logsumexp`], [`cross_entropy`] |
//! | activations | no number is the answer, at large inputs | [`tanh`], [`relu`] and their gradients |
//! | hyper-parameters | [`GradientFlag::UpdateTooLarge`] from the first step | a smaller learning rate: updates near a thousandth of the weights |
//! | division by zero | no number is the answer, or a division by zero | [`safe_div`], [`safe_sqrt`], [`safe_ln`], [`xlogy`] and their gradients |
//!
//! There are no functions for first weights here: each is one line with the generator of random numbers that you have.
//! The example `six_causes` of this repository provokes each of them, shows the report, and cures it.
//!
//! # 6. Make it happen again
//!
//! The bits of a result depend on the operands alone. With the same seed a run that failed on a server with many threads
//! fails at the same step, at the same element, on a laptop with one. `NANPROOF_ISA` (`baseline`, `avx2`, `avx512`)
//! changes the speed and nothing else, so you may leave it out of the search.
//!
//! [`FaultLog`]: crate::FaultLog
//! [`check_finite`]: crate::check_finite
//! [`check_operation`]: crate::check_operation
//! [`gradcheck`]: crate::gradcheck()
//! [`GradientLog`]: crate::GradientLog
//! [`TensorStats::exponents`]: crate::TensorStats::exponents
//! [`DynamicLossScale`]: crate::DynamicLossScale
//! [`GradientFlag::Exploding`]: crate::GradientFlag::Exploding
//! [`GradientFlag::Vanishing`]: crate::GradientFlag::Vanishing
//! [`GradientFlag::UpdateTooLarge`]: crate::GradientFlag::UpdateTooLarge
//! [`clip_by_global_norm`]: crate::clip_by_global_norm
//! [`clip_by_norm`]: crate::clip_by_norm
//! [`clip_unitwise`]: crate::clip_unitwise
//! [`softmax`]: crate::softmax
//! [`log_softmax`]: crate::log_softmax
//! [`logsumexp`]: crate::logsumexp
//! [`cross_entropy`]: crate::cross_entropy
//! [`tanh`]: crate::tanh
//! [`relu`]: crate::relu
//! [`safe_div`]: crate::safe_div
//! [`safe_sqrt`]: crate::safe_sqrt
//! [`safe_ln`]: crate::safe_ln
//! [`xlogy`]: crate::xlogy
