//! A fixed set of results of every operation, as one hash for each: the same bits on every machine, in every version.

mod common;

use std::collections::BTreeMap;
use std::fmt::Write;

use common::{Case, Kind, data, every_op, num};
use nanproof::Float;

/// Rows and columns that cross blocks, groups of blocks, register tiles, k-blocks and leaves of sums.
const SHAPES: [(usize, usize); 6] = [(1, 5), (3, 16), (9, 77), (2, 1100), (17, 40), (1, 4700)];

/// FNV-1a, 64 bits, over the bits of the values; any NaN counts as one.
fn hash<T: Float>(hash: u64, values: &[T]) -> u64 {
    let bits = values.iter().map(|x| if x.is_nan() { T::nan().abs().to_bits() } else { x.to_bits() });
    bits.flat_map(u64::to_le_bytes).fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

fn digests<T: Float>() -> BTreeMap<&'static str, String> {
    let digest = |run: fn(Case<'_, T>) -> common::Outcome<T>| {
        let mut digest = 0xcbf2_9ce4_8422_2325;
        for kind in [Kind::Within(2.0), Kind::Within(40.0), Kind::AnyFinite, Kind::Whole, Kind::Special] {
            for (rows, cols) in SHAPES {
                let [x, y, z] = [1, 2, 3].map(|seed| data::<T>(seed * 1000 + cols as u64, kind, rows * cols));
                digest = hash(digest, &run(Case { rows, cols, x: &x, y: &y, z: &z, g: num(0.8125) }).values);
            }
        }
        format!("{digest:016x}")
    };
    every_op::<T>().into_iter().map(|(name, run)| (name, digest(run))).collect()
}

/// Run with `NANPROOF_BLESS=1` to write the file anew.
#[test]
fn digest() {
    let (f32, f64) = (digests::<f32>(), digests::<f64>());
    let mut got = String::new();
    for (name, digest) in &f32 {
        writeln!(got, "{name} f32 {digest} f64 {}", f64[name]).expect("a string takes all");
    }
    if std::env::var_os("NANPROOF_BLESS").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/digest.txt"), &got).expect("a writable file");
        return;
    }
    let want = include_str!("digest.txt");
    let changed = |from: &str, to: &str| {
        let lines = to.lines().collect::<Vec<_>>();
        from.lines().filter(|line| !lines.contains(line)).map(|line| format!("  {line}\n")).collect::<String>()
    };
    assert!(
        got == want,
        "results have other bits than tests/digest.txt says. If that is meant, list the operations in the Numerics \
         section of CHANGELOG.md and run this test with NANPROOF_BLESS=1.\nexpected:\n{}found:\n{}",
        changed(want, &got),
        changed(&got, want),
    );
}
