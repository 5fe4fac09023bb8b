//! What is gathered in pieces or over time: log-sum-exp and norms of parts in any grouping, statistics, logs.

#![no_main]

use std::collections::HashMap;

use arbitrary::{Result as Drawn, Unstructured};
use libfuzzer_sys::fuzz_target;
use nanproof::reference::{self, Wide};
use nanproof::*;
use nanproof_fuzz::*;

fn run<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    match u.int_in_range(0..=5)? {
        0 => log_sum_exp::<T>(u),
        1 => places::<T>(u),
        2 => norms::<T>(u),
        3 => bytes::<T>(u),
        4 => statistics::<T>(u),
        _ => log::<T>(u),
    }
}

/// Few different numbers again and again, so that the reference is quick; now and then any.
fn entries<T: Float>(u: &mut Unstructured<'_>) -> Drawn<Vec<T>> {
    let block = LogSumExp::<T>::BLOCK;
    let len = u.int_in_range(0..=3)? * block + if u.arbitrary()? { length(u, block - 1)? } else { 0 };
    let count = u.int_in_range(1..=32)?;
    let pattern = numbers::<T>(u, count)?;
    Ok(pattern.into_iter().cycle().take(len).collect())
}

/// Pieces in any grouping give the bits of the whole, which is within its error.
fn log_sum_exp<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    let x = entries::<T>(u)?;
    let whole = everywhere("LogSumExp", [], |[]: [&mut [T]; 0]| {
        let mut sum = LogSumExp::new();
        sum.push(&x).map(|()| sum)
    });
    check_report(&whole.result, &[("x", Operand::Slice(&x))], &[], &[]);
    let is_fault = |x: &T| x.is_nan() || *x == T::infinity();
    assert_eq!(is_reported(&whole.result), x.iter().any(is_fault), "{:?}", whole.result);
    let Ok(whole) = whole.result else { return Ok(()) };

    let mut pieces = cut(u, &x, LogSumExp::<T>::BLOCK)?;
    let mut sums = Vec::new();
    let mut start = 0;
    while !pieces.is_empty() {
        let mut sum = LogSumExp::starting_at(start).expect("a block begins there");
        for piece in pieces.drain(..u.int_in_range(1..=pieces.len())?) {
            sum.push(piece).expect("nothing is wrong with the whole");
            start += piece.len();
        }
        sums.push(sum);
    }
    while sums.len() > 1 {
        let i = u.choose_index(sums.len() - 1)?;
        let right = sums.remove(i + 1);
        sums[i] = sums[i].clone().merge(right).expect("it is the next");
    }
    assert_eq!(sums.pop().unwrap_or_default(), whole, "{x:?}");
    let value = everywhere("LogSumExp::value", [], |[]: [&mut [T]; 0]| whole.value()).result.unwrap();
    check_log_sum_exp(&x, value);
    Ok(())
}

/// Cuts a slice at multiples of a number, into pieces that may be empty.
fn cut<'a, T>(u: &mut Unstructured<'_>, mut x: &'a [T], unit: usize) -> Drawn<Vec<&'a [T]>> {
    let mut pieces = Vec::new();
    while x.len() > unit {
        let (piece, rest) = x.split_at(unit * u.int_in_range(0..=x.len() / unit)?);
        pieces.push(piece);
        x = rest;
        if piece.is_empty() {
            break;
        }
    }
    pieces.push(x);
    Ok(pieces)
}

fn check_log_sum_exp<T: Float>(x: &[T], got: T) {
    let mut counts = HashMap::<u64, (T, f64)>::new();
    x.iter().for_each(|&x| counts.entry(x.to_bits()).or_insert((x, 0.0)).1 += 1.0);
    let max = x.iter().fold(T::neg_infinity(), |max, &x| max.max(x));
    if max == T::neg_infinity() {
        return assert!(same(got, max), "{got:e}");
    }
    // Without one of the largest, beside which the others may be too small to count in a sum.
    let terms = counts.values().map(|&(x, count)| {
        let count = if x.to_bits() == max.to_bits() { count - 1.0 } else { count };
        Wide::new(count) * (Wide::new(x) - Wide::new(max)).exp()
    });
    let rest = terms.fold(Wide::new(T::zero()), |sum, term| sum + term);
    let want = Wide::new(max) + rest.ln_1p();
    // Where the maximum is nearly cancelled, the error is a part of it.
    let last_place = T::epsilon() * max.abs().max(T::min_positive_value());
    assert_ulp_beyond("log-sum-exp", got, want, 3.0, Wide::new(num::<T>(3.0)) * Wide::new(last_place));
}

/// What does not fit together is refused, and changes nothing; a piece without entries fits anywhere.
fn places<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    let block = LogSumExp::<T>::BLOCK;
    let start = if u.arbitrary()? { u.int_in_range(0..=9)? * block } else { u.arbitrary()? };
    let Ok(mut sum) = LogSumExp::<T>::starting_at(start) else {
        assert!(!start.is_multiple_of(block));
        return Ok(());
    };
    assert!(start.is_multiple_of(block));
    let mut len = 0;
    for _ in 0..u.int_in_range(0..=3)? {
        let x = entries::<T>(u)?;
        let before = sum.clone();
        match sum.push(&x) {
            Ok(()) => {
                assert!(x.is_empty() || len % block == 0, "{x:?} after {len} entries");
                len += x.len();
            }
            Err(error) => {
                assert_eq!(is_refused::<()>(&Err(error)), len % block > 0, "{x:?} after {len} entries");
                assert_eq!(sum, before);
            }
        }
    }
    assert!(!sum.value().expect("no entry was bad").is_nan());
    let (first, entries) = (u.int_in_range(0..=9)? * block, u.int_in_range(0..=1)?);
    let mut next = LogSumExp::starting_at(first).expect("a block begins there");
    next.push(&vec![T::zero(); entries]).expect("nothing was pushed before");
    let follows = len.is_multiple_of(block) && first == start.wrapping_add(len);
    assert_eq!(sum.merge(next).is_ok(), entries == 0 || len == 0 || follows, "{start}, {len}, {first}, {entries}");
    Ok(())
}

/// Partial norms in any order and grouping, also of shards, are those of the whole.
fn norms<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    let shard = NormPartial::<T>::SHARD;
    let long = u.ratio(1, 8)?;
    let (mut tensors, mut partials) = (Vec::new(), Vec::new());
    for _ in 0..u.int_in_range(0..=4)? {
        let len = length(u, if long { 3 * shard } else { 100 })?;
        let x = numbers::<T>(u, len)?;
        for shard in cut(u, &x, shard)? {
            partials.push(everywhere("NormPartial", [], |[]: [&mut [T]; 0]| NormPartial::of(shard)).result.unwrap());
        }
        tensors.push(x);
    }
    let whole = tensors.iter().map(|x| NormPartial::of(x).unwrap()).fold(NormPartial::default(), NormPartial::merge);
    while partials.len() > 1 {
        let a = partials.swap_remove(u.choose_index(partials.len())?);
        let i = u.choose_index(partials.len())?;
        partials[i] = if u.arbitrary()? { a.merge(partials[i]) } else { partials[i].merge(a) };
    }
    let merged = partials.pop().unwrap_or_default();
    assert_eq!(merged, whole, "{tensors:?}");
    assert_eq!(NormPartial::from_bytes(&merged.to_bytes()).unwrap(), merged, "{tensors:?}");
    check_partial(merged, &tensors, scalar(u)?);
    Ok(())
}

fn check_partial<T: Float>(partial: NormPartial<T>, tensors: &[Vec<T>], max: T) {
    let flat = tensors.concat();
    let count = |class| flat.iter().filter(|&&x| Class::of(x) == Some(class)).count();
    let counts = partial.counts();
    assert_eq!([counts.nan, counts.pos_inf, counts.neg_inf], [Class::Nan, Class::PosInf, Class::NegInf].map(count));
    assert_eq!(counts.len, flat.len());
    let norm = partial.norm();
    let [mut own, mut all] = [tensors; 2].map(<[_]>::to_vec);
    let clip = partial.clip(&mut slices(&mut own), max);
    let global = clip_by_global_norm(&mut slices(&mut all), max);
    assert_eq!(clip.is_ok(), global.is_ok(), "{clip:?}, {global:?}");
    assert_same("NormPartial::clip and clip_by_global_norm", &own.concat(), &all.concat());
    if let (Ok(clip), Ok(global)) = (clip, global) {
        assert_eq!(clip, global);
        assert!(same(clip.norm, norm.as_ref().map_or(T::infinity(), |&norm| norm)), "{clip:?}, {norm:?}");
    }
    if let [x] = tensors {
        assert_eq!(norm.is_ok(), l2_norm(x).is_ok());
        assert!(norm.is_err() || same(norm.unwrap(), l2_norm(x).unwrap()), "{x:?}");
    }
}

fn slices<T>(tensors: &mut [Vec<T>]) -> Vec<&mut [T]> {
    tensors.iter_mut().map(Vec::as_mut_slice).collect()
}

/// Bytes from anywhere are a partial norm or refused, and what is made of them is sound.
fn bytes<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    let usual = NormPartial::<T>::default().to_bytes().len();
    let read = |u: &mut Unstructured<'_>| -> Drawn<Option<NormPartial<T>>> {
        let len = nearly(u, usual)?;
        let mut bytes = vec![if u.arbitrary()? { 0 } else { 255 }; len];
        let filled = u.int_in_range(0..=len)?;
        u.fill_buffer(&mut bytes[..filled])?;
        if u.arbitrary()? {
            bytes.reverse();
        }
        let partial = NormPartial::from_bytes(&bytes);
        assert_eq!(partial.is_ok(), len == usual, "{partial:?}");
        if let Ok(partial) = &partial {
            assert_eq!(partial.to_bytes(), bytes);
        }
        Ok(partial.ok())
    };
    let (Some(a), Some(b)) = (read(u)?, read(u)?) else { return Ok(()) };
    assert_eq!(a.merge(b), b.merge(a));
    for partial in [a, b, a.merge(b)] {
        let _ = format!("{:?}", partial.norm());
        let x = numbers::<T>(u, 5)?;
        let mut clipped = x.clone();
        if partial.clip(&mut [&mut clipped], scalar(u)?).is_err() {
            assert_same("NormPartial::clip wrote what it refused", &clipped, &x);
        }
    }
    Ok(())
}

fn statistics<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    let long = u.ratio(1, 16)?;
    let len = length(u, if long { 9000 } else { 100 })?;
    let x = numbers::<T>(u, len)?;
    check_statistics(&x, &everywhere("TensorStats", [], |[]: [&mut [T]; 0]| TensorStats::of(&x)).result.unwrap());
    Ok(())
}

fn check_statistics<T: Float>(x: &[T], stats: &TensorStats) {
    let count = |is_one: fn(T) -> bool| x.iter().filter(|&&x| is_one(x)).count();
    assert_eq!(stats.len, x.len());
    assert_eq!(stats.zeros, count(|x| x.is_zero()), "{x:?}");
    assert_eq!(stats.subnormals, count(|x| x.is_subnormal()), "{x:?}");
    assert_eq!(stats.nan, count(|x| x.is_nan()), "{x:?}");
    assert_eq!(stats.pos_inf, count(|x| x == T::infinity()), "{x:?}");
    assert_eq!(stats.neg_inf, count(|x| x == T::neg_infinity()), "{x:?}");
    let of_exponents: u64 = stats.exponents.iter().map(|(_, count)| count).sum();
    assert_eq!(of_exponents as usize + stats.zeros + stats.not_finite(), x.len(), "{x:?}");
    for losses in [stats.exponents.f16(), stats.exponents.bf16()] {
        assert!(losses.overflow + losses.subnormal + losses.flushed <= of_exponents, "{x:?}: {losses:?}");
    }
    let finite: Vec<f64> = x.iter().filter(|x| x.is_finite()).map(|&x| wide(x)).collect();
    let magnitudes = || finite.iter().map(|x| x.abs());
    assert_eq!(stats.largest, magnitudes().fold(0.0, f64::max), "{x:?}");
    let smallest = magnitudes().filter(|&x| x > 0.0).fold(f64::INFINITY, f64::min);
    assert_eq!(stats.smallest, if smallest.is_finite() { smallest } else { 0.0 }, "{x:?}");
    if !finite.is_empty() && finite.len() <= 100 {
        check_moments(&finite, stats);
    }
}

/// Each within 1e-12 of itself, the mean of the largest magnitude.
fn check_moments(x: &[f64], stats: &TensorStats) {
    let near = |name: &str, got: f64, want: Wide, size: Wide| {
        let error = Wide::new(1e-12) * size + smallest::<f64>();
        assert_near(&format!("{name} of {x:?}"), got, want, error);
    };
    near("the mean", stats.mean, reference::mean(x), Wide::new(stats.largest));
    let (std, norm) = (reference::variance(x, 0).sqrt(), reference::l2_norm(x));
    near("the deviation", stats.std, std, std);
    near("the norm", stats.norm, norm, norm);
}

/// The name, what was recorded at the last step, and the sizes.
#[derive(Default)]
struct Known {
    last: Option<(u64, [bool; 3])>,
    len: Option<usize>,
    units: Option<usize>,
}

/// Names that are used twice, steps that descend and tensors that change their size are errors and leave the log as it
/// was.
fn log<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    let mut log = GradientLog::new(rules(u)?);
    let mut known = HashMap::<&str, Known>::new();
    let mut step = 0_u64;
    for _ in 0..u.int_in_range(0..=30)? {
        step = if u.ratio(1, 16)? { u.arbitrary()? } else { step.saturating_add(u.int_in_range(0..=1)?) };
        let name = if u.ratio(1, 24)? { "" } else { *u.choose(&["a", "b, \"c\"\n"])? };
        let len = nearly(u, 6)?;
        let (x, y) = (numbers::<T>(u, len)?, about::<T>(u, len)?);
        let kind = u.choose_index(3)?;
        let cols = if kind == 2 && len % 3 == 0 { 3 } else { len };
        let before = log.clone();
        let result = match kind {
            0 => log.record(step, name, &x),
            1 => log.record_update(step, name, &x, &y),
            _ => log.record_units(step, name, MatRef::new(&x, if cols > 0 { len / cols } else { 0 }, cols).unwrap()),
        };
        let result = result.cloned();
        let tensor = known.entry(name).or_default();
        let is_repeated = tensor.last.is_some_and(|(last, kinds)| last > step || last == step && kinds[kind]);
        let size = if kind == 2 { &mut tensor.units } else { &mut tensor.len };
        let fits = size.is_none_or(|size| size == cols) && (kind != 1 || x.len() == y.len());
        match &result {
            Err(LogError::Unnamed) => assert!(name.is_empty()),
            Err(LogError::Repeated { .. }) => assert!(is_repeated),
            Err(LogError::Length { .. }) => assert!(!is_repeated && !fits),
            Err(error) => panic!("{error}"),
            Ok(record) => {
                assert!(!name.is_empty() && !is_repeated && fits, "step {step} of {name}");
                // Of units without rows nothing is recorded, and it may be later.
                let is_empty = kind == 2 && x.is_empty();
                if !is_empty {
                    *size = Some(cols);
                }
                let kinds = tensor.last.filter(|(last, _)| *last == step).map_or([false; 3], |(_, kinds)| kinds);
                // The ratio to weights of 0 is not recorded, and may be later.
                let is_noted = !is_empty && (kind != 1 || record.update_ratio.is_some());
                tensor.last = Some((step, std::array::from_fn(|i| kinds[i] || i == kind && is_noted)));
                assert_eq!(record.step, step);
                if kind == 0 {
                    check_statistics(&x, record.gradient.as_ref().unwrap());
                }
            }
        }
        if result.is_err() {
            assert_eq!(format!("{log:?}"), format!("{before:?}"));
        }
    }
    let _ = format!("{log}");
    // A name with a line break is one field.
    let records: usize = log.tensors().iter().map(|tensor| tensor.records.len()).sum();
    assert!(log.csv().lines().count() > records);
    Ok(())
}

fn rules(u: &mut Unstructured<'_>) -> Drawn<GradientRules> {
    let usual = GradientRules::default();
    if u.arbitrary()? {
        return Ok(usual);
    }
    Ok(GradientRules {
        growth: u.arbitrary()?,
        decay: u.arbitrary()?,
        window: if u.arbitrary()? { u.int_in_range(0..=5)? } else { u.arbitrary()? },
        dead_after: u.int_in_range(0..=3)?,
        dead_share: u.arbitrary()?,
        ..usual
    })
}

fuzz_target!(|data: &[u8]| {
    let u = &mut Unstructured::new(data);
    let _ = if u.arbitrary().unwrap_or(false) { run::<f64>(u) } else { run::<f32>(u) };
});
