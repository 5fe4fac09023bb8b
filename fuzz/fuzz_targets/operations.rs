//! Every operation of the tests' table, on operands of any bits: the same bits and the same report on every instruction
//! set, no panic, and no NaN in what is returned as good.

#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use arbitrary::{Result as Drawn, Unstructured};
use libfuzzer_sys::fuzz_target;
use nanproof::{Float, Isa};
use nanproof_fuzz::{length, numbers, scalar};

use common::{Case, every_op};

fn run<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    let ops = every_op::<T>();
    let (name, operation) = ops[u.choose_index(ops.len())?];
    let long = u.ratio(1, 32)?;
    let (rows, cols) = (length(u, if long { 3 } else { 40 })?, length(u, if long { 5000 } else { 70 })?);
    let len = rows * cols;
    let (x, y, z, g) = (numbers::<T>(u, len)?, numbers::<T>(u, len)?, numbers::<T>(u, len)?, scalar::<T>(u)?);
    let case = Case { rows, cols, x: &x, y: &y, z: &z, g };
    let run_on = |isa: Isa| isa.run(|| Ok(operation(case))).expect("it is available");
    let want = run_on(Isa::Baseline);
    for &isa in Isa::available() {
        run_on(isa).assert_same(&want, format_args!("{name} on {isa}, {case:?}"));
    }
    if want.error.is_none() {
        assert!(!want.values.iter().any(|x| x.is_nan()), "{name}: a NaN without a report, {case:?}");
    }
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    let mut u = Unstructured::new(bytes);
    let _ = if u.arbitrary().unwrap_or_default() { run::<f32>(&mut u) } else { run::<f64>(&mut u) };
});
