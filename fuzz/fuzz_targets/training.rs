//! Clipping in all its forms, loss scales and the steps of optimisers, on operands of any bits: the documented error,
//! what is within the limit, what is refused and leaves everything as it was.

#![no_main]

use arbitrary::{Result as Drawn, Unstructured};
use libfuzzer_sys::fuzz_target;
use nanproof::reference::{self, Wide};
use nanproof::*;
use nanproof_fuzz::*;

fn run<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    match u.int_in_range(0..=10)? {
        0 => by_value::<T>(u),
        1 => by_norm::<T>(u),
        2 => by_rms::<T>(u),
        3 => by_global_norm::<T>(u),
        4 => with_options::<T>(u),
        5 => by_norms_of_rows::<T>(u),
        6 => with_norms_of_rows::<T>(u),
        7 => by_weights::<T>(u),
        8 => loss_scale::<T>(u),
        9 => sgd::<T>(u),
        _ => adam::<T>(u),
    }
}

fn vector<T: Float>(u: &mut Unstructured<'_>) -> Drawn<Vec<T>> {
    let long = u.ratio(1, 32)?;
    let len = length(u, if long { 20_000 } else { 100 })?;
    numbers(u, len)
}

/// A matrix to clip, of any layout.
fn matrix<T: Float>(u: &mut Unstructured<'_>) -> Drawn<Matrix<T>> {
    let (rows, cols) = (length(u, 12)?, length(u, 40)?);
    Matrix::draw(u, rows, cols, false)
}

fn tensors<T: Float>(u: &mut Unstructured<'_>) -> Drawn<Vec<Vec<T>>> {
    (0..u.int_in_range(0..=4)?).map(|_| vector(u)).collect()
}

/// A limit, of any magnitude.
fn limit<T: Float>(u: &mut Unstructured<'_>) -> Drawn<T> {
    let any: T = scalar(u)?;
    Ok(if u.ratio(1, 8)? { any } else { any.abs() })
}

fn is_limit<T: Float>(limit: T) -> bool {
    limit >= T::zero()
}

fn zero() -> Wide {
    Wide::new(0.0_f64)
}

fn all_finite_in<T: Float>(x: &Matrix<T>) -> bool {
    all_finite(&elements(x.read()))
}

// --- One tensor ------------------------------------------------------------------------------------------------------

fn by_value<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    let (x, limit) = (vector::<T>(u)?, limit::<T>(u)?);
    let Outcome { written: [y], result } = everywhere("clip_by_value", [&x], |[x]| clip_by_value(x, limit));
    assert_eq!(is_refused(&result), !is_limit(limit), "{limit:e}: {result:?}");
    check_report(&result, &[("x", Operand::Slice(&x))], &[], &[]);
    let want: Vec<T> = x.iter().map(|&x| if x.abs() > limit { limit.copysign(x) } else { x }).collect();
    if !is_refused(&result) {
        assert_eq!(is_reported(&result), !all_finite(&want), "{result:?}");
    }
    assert_same("clip_by_value", &y, if result.is_ok() { &want } else { &x });
    if let Ok(count) = result {
        assert_eq!(count, x.iter().filter(|x| x.abs() > limit).count());
    }

    let (dy, dx) = (about::<T>(u, x.len())?, about::<T>(u, x.len())?);
    let f = |[dx]: [&mut [T]; 1]| clip_by_value_backward(&x, limit, &dy, dx);
    let Outcome { written: [dx], result } = everywhere("clip_by_value_backward", [&dx], f);
    let refused = !is_limit(limit) || dy.len() != x.len() || dx.len() != x.len();
    assert_eq!(is_refused(&result), refused, "{limit:e}: {result:?}");
    if !refused {
        let inputs = [("x", Operand::Slice(&x)), ("dy", Operand::Slice(&dy))];
        check_report(&result, &inputs, &[], &[]);
        let gradient = |(&x, &dy): (&T, &T)| match () {
            () if x.is_nan() => x,
            () if x.abs() > limit => T::zero(),
            () => dy,
        };
        assert_same("clip_by_value_backward", &dx, &x.iter().zip(&dy).map(gradient).collect::<Vec<_>>());
        assert_eq!(is_reported(&result), !all_finite(&dx), "{result:?}");
    }
    Ok(())
}

fn by_norm<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    let (x, max) = (vector::<T>(u)?, limit::<T>(u)?);
    let Outcome { written: [y], result } = everywhere("clip_by_norm", [&x], |[x]| clip_by_norm(x, max));
    assert_eq!(is_refused(&result), !is_limit(max), "{result:?}");
    check_report(&result, &[("x", Operand::Slice(&x))], &[], &[]);
    check_clip(max, &x, &y, &result);
    if result.is_ok() {
        clipping_again(max, &y);
    }
    Ok(())
}

fn by_rms<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    let (x, max) = (vector::<T>(u)?, limit::<T>(u)?);
    let Outcome { written: [y], result } = everywhere("clip_by_rms", [&x], |[x]| clip_by_rms(x, max));
    assert_eq!(is_refused(&result), !is_limit(max), "{result:?}");
    check_report(&result, &[("x", Operand::Slice(&x))], &[], &[]);
    let root = Wide::new(x.len().max(1) as f64).sqrt();
    check_scaled("clip_by_rms", max, &x, &y, &result, Wide::new(max) * root, [root, root]);
    Ok(())
}

/// What elements are within that were clipped, and norms beside them.
const CLIP_ULPS: f64 = 4.0;

/// `x` became `y` by clipping to a norm.
fn check_clip<T: Float>(max: T, x: &[T], y: &[T], result: &Result<Clip<T>>) {
    let one = Wide::new(1.0_f64);
    check_scaled("clipping", max, x, y, result, Wide::new(max), [one; 2]);
    if let Ok(clip) = result
        && x.len() <= COMPARED
    {
        assert_ulp("the norm", clip.norm, reference::l2_norm(x), if T::LANES == 16 { 2.0 } else { 1.0 });
    }
}

/// The reference takes a microsecond an element.
const COMPARED: usize = 300;

/// `x` became `y` by a clipping whose norm is that of the elements over the first divisor, and is to be `limit` over the
/// second one.
#[track_caller]
fn check_scaled<T: Float>(
    name: &str,
    max: T,
    x: &[T],
    y: &[T],
    result: &Result<Clip<T>>,
    limit: Wide,
    [divisor, limit_divisor]: [Wide; 2],
) {
    let clip = match result {
        Ok(clip) => clip,
        Err(_) => {
            assert!(is_refused(result) || !all_finite(x), "{name}: {result:?}");
            return assert_same(&format!("{name} wrote what it refused"), y, x);
        }
    };
    assert!(all_finite(x) && all_finite(y), "{name} of {x:?}, {max:e}: {y:?}");
    check_is_clipped(clip, max);
    if !clip.clipped {
        assert_eq!(clip.scale, T::one(), "{name}");
        assert_same(&format!("{name}: within the limit"), y, x);
    }
    if x.len() > COMPARED {
        return;
    }
    let norm = reference::l2_norm(x);
    assert_ulp(&format!("{name}: the norm of {x:?}"), clip.norm, norm / divisor, CLIP_ULPS);
    check_elements(name, x, y, norm, limit, CLIP_ULPS);
    if max.is_finite() {
        let excess = clip_error::<T>(y.len(), limit);
        let norm = reference::l2_norm(y);
        assert!(norm <= limit + excess, "{name}: {x:?} clipped to {max:e} over {:e}: {y:?}", limit_divisor.to_f64());
    }
}

/// What is longer than the limit is clipped. A norm that is no normal number may have been longer than what it is rounded to.
#[track_caller]
fn check_is_clipped<T: Float>(clip: &Clip<T>, max: T) {
    let may_be_longer = clip.norm == max && !clip.norm.is_normal();
    assert!(clip.clipped == (clip.norm > max) || may_be_longer, "{clip:?}, {max:e}");
}

/// Elements of this norm are scaled down to a limit.
#[track_caller]
fn check_elements<T: Float>(name: &str, x: &[T], y: &[T], norm: Wide, limit: Wide, ulps: f64) {
    for (i, (&x, &y)) in x.iter().zip(y).enumerate() {
        let want = if norm <= limit { Wide::new(x) } else { Wide::new(x) * limit / norm };
        let context = || format!("{name}: {x:e} at {i}, of norm {:e}, to {:e}", norm.to_f64(), limit.to_f64());
        assert_ulp(&context(), y, want, ulps);
    }
}

/// What the norm of `n` elements is within that were clipped to a norm.
fn clip_error<T: Float>(n: usize, norm: Wide) -> Wide {
    Wide::new(CLIP_ULPS) * (Wide::new(T::epsilon()) * norm + Wide::new(n as f64).sqrt() * smallest::<T>())
}

/// Clipping what was clipped moves it no further than the error of either.
fn clipping_again<T: Float>(max: T, y: &[T]) {
    let mut z = y.to_vec();
    let result = clip_by_norm(&mut z, max);
    check_clip(max, y, &z, &result);
    let error = clip_error::<T>(y.len(), Wide::new(max));
    for (&y, &z) in y.iter().zip(&z) {
        let moved = (Wide::new(y) - Wide::new(z)).abs();
        assert!(moved <= error + error, "{y:e} clipped to {max:e} became {z:e}");
    }
}

// --- Many tensors ----------------------------------------------------------------------------------------------------

fn by_global_norm<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    let (tensors, max) = (tensors::<T>(u)?, limit::<T>(u)?);
    let flat = tensors.concat();
    let f = |[flat]: [&mut [T]; 1]| clip_by_global_norm(&mut parts(flat, &tensors), max);
    let Outcome { written: [y], result } = everywhere("clip_by_global_norm", [&flat], f);
    assert_eq!(is_refused(&result), !is_limit(max), "{result:?}");
    check_report(&result, &[("tensors", Operand::Tensors(&tensors))], &[], &[]);
    check_clip(max, &flat, &y, &result);

    // The order of the tensors changes no bit.
    let reversed: Vec<_> = tensors.iter().rev().cloned().collect();
    let mut z = reversed.concat();
    let again = clip_by_global_norm(&mut parts(&mut z, &reversed), max);
    let z: Vec<T> = parts(&mut z, &reversed).into_iter().rev().flat_map(|x| x.to_vec()).collect();
    assert_same("clip_by_global_norm, in another order", &z, &y);
    assert_eq!(again.ok(), result.ok());
    Ok(())
}

/// A slice in parts as long as the tensors.
fn parts<'a, T>(mut rest: &'a mut [T], tensors: &[Vec<T>]) -> Vec<&'a mut [T]> {
    let mut parts = Vec::new();
    for tensor in tensors {
        let (part, others) = rest.split_at_mut(tensor.len());
        parts.push(part);
        rest = others;
    }
    parts
}

/// A call of [`clip_by_global_norm_with`] or [`unscale`].
#[derive(Debug)]
struct Call<'a, T> {
    options: Clipping<T>,
    tensors: &'a [Vec<T>],
    max: T,
    /// Of the elements.
    ulps: f64,
}

fn with_options<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    let (tensors, mut max) = (tensors::<T>(u)?, limit::<T>(u)?);
    let loss_scale = match u.int_in_range(0..=3)? {
        0 => T::one(),
        1 => num::<T>(2.0).powi(u.int_in_range(-20..=24)?),
        _ => limit(u)?,
    };
    let flat = tensors.concat();
    if u.ratio(1, 6)? {
        let f = |[flat]: [&mut [T]; 1]| unscale(&mut parts(flat, &tensors), loss_scale);
        let Outcome { written: [y], result } = everywhere("unscale", [&flat], f);
        let options = Clipping { loss_scale, ..Clipping::default() };
        let call = Call { options, tensors: &tensors, max: T::infinity(), ulps: 1.5 };
        call.check(&y, None, &result);
        return Ok(());
    }
    let on_fault = *u.choose(&[OnFault::Refuse, OnFault::Skip, OnFault::Zero, OnFault::Scale])?;
    if u.ratio(1, 4)? {
        max = T::infinity();
    }
    let options = Clipping { loss_scale, on_fault };
    let norms: Option<Vec<T>> = if u.arbitrary()? { Some(about(u, tensors.len())?) } else { None };
    let f = |[flat, norms_written]: [&mut [T]; 2]| {
        let norms = norms.as_ref().map(|_| norms_written);
        clip_by_global_norm_with(options, &mut parts(flat, &tensors), max, norms)
    };
    let operands = [&flat[..], norms.as_deref().unwrap_or_default()];
    let Outcome { written: [y, written], result } = everywhere("clip_by_global_norm_with", operands, f);
    let call = Call { options, tensors: &tensors, max, ulps: CLIP_ULPS };
    call.check(&y, norms.is_some().then_some(&written), &result);
    Ok(())
}

impl<T: Float> Call<'_, T> {
    fn is_refused(&self, norms: Option<&Vec<T>>) -> bool {
        let Clipping { loss_scale, .. } = self.options;
        let is_scale = loss_scale > T::zero() && loss_scale.is_finite();
        !is_limit(self.max) || !is_scale || norms.is_some_and(|norms| norms.len() != self.tensors.len())
    }

    fn quotient(&self, x: T) -> Wide {
        Wide::new(x) / Wide::new(self.options.loss_scale)
    }

    fn check(&self, y: &[T], norms: Option<&Vec<T>>, result: &Result<Clip<T>>) {
        let refused = self.is_refused(norms);
        assert_eq!(is_refused(result), refused, "{self:?}: {result:?}");
        let flat = self.tensors.concat();
        // A quotient that overflows is named as an output.
        let quotients: Vec<Vec<T>> = self.tensors.iter().map(|x| x.iter().map(|&x| self.narrow(x)).collect()).collect();
        let inputs = [("tensors", Operand::Tensors(self.tensors))];
        check_report(result, &inputs, &[("tensors", Operand::Tensors(&quotients))], &[]);
        if refused || self.is_on_the_edge(&flat) {
            return;
        }
        let is_fault = |x: T| !x.is_finite() || self.max.is_infinite() && !self.narrow(x).is_finite();
        let has_fault = flat.iter().any(|&x| is_fault(x));
        let refuses = has_fault && self.options.on_fault == OnFault::Refuse;
        assert_eq!(is_reported(result), refuses, "{self:?}: {result:?}");
        let Ok(clip) = result else { return assert_same("clipping wrote what it refused", y, &flat) };
        assert_eq!(clip.fault.is_some(), has_fault, "{self:?}: {clip:?}");
        match self.options.on_fault {
            OnFault::Skip if has_fault => {
                assert_same("clipping wrote what it skipped", y, &flat);
                assert!(clip.scale.is_one() && !clip.clipped, "{clip:?}");
            }
            OnFault::Zero if has_fault => self.check_zeroed(y, norms, *clip),
            OnFault::Scale if has_fault => self.check_spread(&flat, y),
            _ => self.check_quotients(&flat, y, norms, *clip),
        }
    }

    /// The quotient as a number; which one that is may be a matter of rounding near the largest.
    fn narrow(&self, x: T) -> T {
        let Clipping { loss_scale, .. } = self.options;
        let is_beyond = x.is_finite() && self.quotient(x).abs() > Wide::new(T::max_value());
        if is_beyond {
            T::infinity().copysign(x)
        } else if x.is_finite() {
            x
        } else {
            x / loss_scale
        }
    }

    fn is_on_the_edge(&self, flat: &[T]) -> bool {
        let largest = Wide::new(T::max_value());
        let margin = Wide::new(T::epsilon()) * largest * Wide::new(self.ulps);
        flat.iter().any(|&x| (self.quotient(x).abs() - largest).abs() <= margin)
    }

    /// What is not finite counts as 0.
    fn check_zeroed(&self, y: &[T], norms: Option<&Vec<T>>, clip: Clip<T>) {
        let zeroed = |x: &Vec<T>| x.iter().map(|&x| if self.narrow(x).is_finite() { x } else { T::zero() }).collect();
        let tensors: Vec<Vec<T>> = self.tensors.iter().map(zeroed).collect();
        let call = Call { tensors: &tensors, ..*self };
        call.check_quotients(&tensors.concat(), y, norms, clip);
    }

    /// A NaN spreads to all, an infinity leaves zeros and NaN, but where there is no limit.
    fn check_spread(&self, flat: &[T], y: &[T]) {
        let has_nan = flat.iter().any(|x| x.is_nan());
        for (&x, &y) in flat.iter().zip(y) {
            let right = match (has_nan, self.max.is_infinite()) {
                (true, _) => y.is_nan(),
                (false, true) => y.is_infinite() == !self.narrow(x).is_finite(),
                (false, false) => {
                    if x.is_finite() {
                        y.is_zero()
                    } else {
                        y.is_nan()
                    }
                }
            };
            assert!(right, "{self:?}: {x:e} became {y:e}");
        }
    }

    /// All is finite, and clipped if it is too long.
    fn check_quotients(&self, flat: &[T], y: &[T], norms: Option<&Vec<T>>, clip: Clip<T>) {
        assert!(all_finite(y), "{self:?}: {y:?}");
        check_is_clipped(&clip, self.max);
        if flat.len() > COMPARED {
            return;
        }
        let scale = Wide::new(self.options.loss_scale);
        let (norm, limit) = (reference::l2_norm(flat) / scale, Wide::new(self.max));
        assert_ulp(&format!("{self:?}: the norm"), clip.norm, norm, CLIP_ULPS);
        for (&x, &y) in flat.iter().zip(y) {
            let quotient = self.quotient(x);
            // A norm that is too long by less than it is rounded by does not count as too long.
            let is_within = norm <= limit;
            let want = if is_within { quotient } else { quotient * limit / norm };
            let is_kept = is_within && !clip.clipped && self.is_power_of_two();
            let is_exact = is_kept && want.abs() >= Wide::new(T::min_positive_value());
            assert_ulp(&format!("{self:?}: {x:e}"), y, want, if is_exact { 0.0 } else { self.ulps });
        }
        for (x, &norm) in self.tensors.iter().zip(norms.into_iter().flatten()) {
            assert_ulp(&format!("{self:?}: the norm of a tensor"), norm, reference::l2_norm(x) / scale, CLIP_ULPS);
        }
    }

    fn is_power_of_two(&self) -> bool {
        let exponent = wide(self.options.loss_scale).log2();
        exponent.fract() == 0.0 && exponent.exp2() == wide(self.options.loss_scale)
    }
}

// --- Rows ------------------------------------------------------------------------------------------------------------

/// Each row as by [`clip_by_norm`], bit for bit.
fn by_norms_of_rows<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    let (x, max) = (matrix::<T>(u)?, limit::<T>(u)?);
    let norms = about::<T>(u, x.place.rows)?;
    let f = |[]: [MatRef<'_, T>; 0], x: MatMut<'_, T>| {
        let mut norms = norms.clone();
        clip_rows_by_norm(x, max, &mut norms).map(|count| (count, norms))
    };
    let (y, result) = everywhere_and_dense("clip_rows_by_norm", [], &x, f);
    assert_eq!(is_refused(&result), !is_limit(max) || norms.len() != x.place.rows, "{result:?}");
    check_report(&result, &[("x", Operand::Matrix(x.read()))], &[], &[]);
    if let Err(error) = &result {
        assert!(is_refused(&result) || !all_finite_in(&x), "{error}");
        assert_same("clip_rows_by_norm wrote what it refused", &y.data, &x.data);
    }
    let Ok((count, norms)) = result else { return Ok(()) };
    let mut clipped = 0;
    for (i, &norm) in norms.iter().enumerate() {
        let mut row = x.row(i);
        let clip = clip_by_norm(&mut row, max).expect("nothing was reported");
        assert_same("clip_rows_by_norm and clip_by_norm", &y.row(i), &row);
        assert!(same(norm, clip.norm), "{norm:e}, {clip:?}");
        clipped += usize::from(clip.clipped);
    }
    assert_eq!(count, clipped);
    Ok(())
}

fn with_norms_of_rows<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    let (x, max) = (matrix::<T>(u)?, limit::<T>(u)?);
    let mut norms = about::<T>(u, x.place.rows)?;
    if !u.ratio(1, 8)? {
        norms.iter_mut().for_each(|norm| *norm = norm.abs());
    }
    let name = "clip_rows_with_norms";
    let f = |[]: [MatRef<'_, T>; 0], x: MatMut<'_, T>| clip_rows_with_norms(x, &norms, max);
    let (y, result) = everywhere_and_dense(name, [], &x, f);
    let is_negative = norms.iter().any(|&norm| norm < T::zero());
    let refused = !is_limit(max) || norms.len() != x.place.rows || is_negative;
    assert_eq!(is_refused(&result), refused, "{result:?}");
    check_report(&result, &[("norms", Operand::Slice(&norms)), ("x", Operand::Matrix(x.read()))], &[], &[]);
    if !refused {
        assert_eq!(is_reported(&result), !all_finite(&norms) || !all_finite_in(&x), "{result:?}");
    }
    let Ok(count) = result else {
        assert_same("clip_rows_with_norms wrote what it refused", &y.data, &x.data);
        return Ok(());
    };
    assert_eq!(count, norms.iter().filter(|&&norm| norm > max).count());
    for (i, &norm) in norms.iter().enumerate() {
        check_elements(name, &x.row(i), &y.row(i), Wide::new(norm), Wide::new(max), 2.0);
    }
    Ok(())
}

fn by_weights<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    let (g, clipping, eps) = (matrix::<T>(u)?, limit::<T>(u)?, limit::<T>(u)?);
    let (rows, cols) = (nearly(u, g.place.rows)?, nearly(u, g.place.cols)?);
    let w = Matrix::<T>::draw(u, rows, cols, true)?;
    let name = "clip_unitwise";
    let f = |[w]: [MatRef<'_, T>; 1], g: MatMut<'_, T>| clip_unitwise(w, g, clipping, eps);
    let (y, result) = everywhere_and_dense(name, [&w], &g, f);
    let refused = !w.has_shape_of(&g) || !is_limit(clipping) || !is_limit(eps);
    assert_eq!(is_refused(&result), refused, "{result:?}");
    check_report(&result, &[("w", Operand::Matrix(w.read())), ("g", Operand::Matrix(g.read()))], &[], &[]);
    if !refused {
        assert_eq!(is_reported(&result), !all_finite_in(&w) || !all_finite_in(&g), "{result:?}");
    }
    let Ok(count) = result else {
        assert_same("clip_unitwise wrote what it refused", &y.data, &g.data);
        return Ok(());
    };
    let mut most = 0;
    for i in 0..g.place.rows {
        let (norm, floor) = (reference::l2_norm(&w.row(i)), Wide::new(eps));
        let limit = match () {
            () if clipping.is_zero() || clipping.is_infinite() => Wide::new(clipping),
            () => Wide::new(clipping) * if norm < floor { floor } else { norm },
        };
        let slack = Wide::new(6.0_f64) * (Wide::new(T::epsilon()) * limit + smallest::<T>());
        let (largest, own) = (Wide::new(T::max_value()), reference::l2_norm(&g.row(i)));
        most += usize::from(own + slack > limit && limit < largest + slack);
        // A limit that overflows clips nothing.
        if limit + slack < largest || limit >= largest + slack {
            let limit = if limit < largest { limit } else { Wide::new(T::infinity()) };
            let context = format!("{name}, {clipping:e}, {eps:e}, of {:?}", w.row(i));
            check_elements(&context, &g.row(i), &y.row(i), own, limit, 6.0);
        }
    }
    assert!(
        count <= most,
        "{count} rows are clipped and no more than {most} are long: {w:?}, {g:?}, {clipping:e}, {eps:e}"
    );
    Ok(())
}

// --- Loss scale ------------------------------------------------------------------------------------------------------

/// What unscaling found.
#[derive(Clone, Copy, Debug)]
enum Found {
    Nothing,
    Nan,
    Infinity,
    Both,
    WrongArgument,
}

impl Found {
    const ALL: [Self; 5] = [Self::Nothing, Self::Nan, Self::Infinity, Self::Both, Self::WrongArgument];

    fn outcome<T: Float>(self, on_fault: OnFault) -> Result<Clip<T>> {
        let (one, nan, infinity) = (T::one(), T::nan(), T::neg_infinity());
        let mut x = match self {
            Self::Nothing | Self::WrongArgument => [one, one],
            Self::Nan => [one, nan],
            Self::Infinity => [infinity, one],
            Self::Both => [nan, infinity],
        };
        let loss_scale = if matches!(self, Self::WrongArgument) { T::zero() } else { T::one() };
        clip_by_global_norm_with(Clipping { loss_scale, on_fault }, &mut [&mut x], T::infinity(), None)
    }
}

fn loss_scale<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    let mut state = drawn_scale::<T>(u)?;
    let is_good = is_good(state);
    for _ in 0..u.int_in_range(1..=12)? {
        let found = *u.choose(&Found::ALL)?;
        let on_fault = *u.choose(&[OnFault::Refuse, OnFault::Skip, OnFault::Zero])?;
        let outcome = found.outcome(on_fault);
        let before = state;
        let result = state.update(&outcome);
        let context = format!("{found:?}, {on_fault:?}, {before:?}: {result:?}, {state:?}");
        if result.is_err() {
            assert_eq!(format!("{state:?}"), format!("{before:?}"), "{context}");
        }
        if !is_good {
            assert!(matches!(result, Err(Error::Argument { .. })), "{context}");
            continue;
        }
        assert!(state.smallest <= state.scale && state.scale <= state.largest, "{context}");
        let (scale, steps) = match (found, &result) {
            (Found::Nothing, Ok(LossStep::Take)) if before.steps.saturating_add(1) >= before.interval => {
                ((before.scale * before.growth).min(before.largest), 0)
            }
            (Found::Nothing, Ok(LossStep::Take)) => (before.scale, before.steps.saturating_add(1)),
            (Found::Infinity | Found::Both, Ok(LossStep::Skip(_))) if before.scale > before.smallest => {
                ((before.scale * before.backoff).max(before.smallest), 0)
            }
            (Found::Infinity | Found::Both, Err(Error::LossScale(_))) if before.scale == before.smallest => {
                (before.scale, before.steps)
            }
            (Found::Nan, Err(Error::NonFinite(_))) | (Found::WrongArgument, Err(Error::Argument { .. })) => {
                (before.scale, before.steps)
            }
            _ => panic!("{context}"),
        };
        assert_eq!(state, DynamicLossScale { scale, steps, ..before }, "{context}");
    }
    Ok(())
}

fn drawn_scale<T: Float>(u: &mut Unstructured<'_>) -> Drawn<DynamicLossScale<T>> {
    let mut state = DynamicLossScale { interval: u.int_in_range(1..=3)?, ..DynamicLossScale::default() };
    if u.arbitrary()? {
        (state.growth, state.backoff) = (scalar(u)?, scalar(u)?);
    }
    if u.arbitrary()? {
        (state.smallest, state.largest) = (scalar(u)?, scalar(u)?);
        state.scale = *u.choose(&[state.smallest, state.largest, T::one()])?;
    }
    if u.ratio(1, 8)? {
        (state.scale, state.interval, state.steps) = (scalar(u)?, u.arbitrary()?, u.arbitrary()?);
    }
    Ok(state)
}

fn is_good<T: Float>(state: DynamicLossScale<T>) -> bool {
    let (zero, one) = (T::zero(), T::one());
    let DynamicLossScale { scale, growth, backoff, interval, steps: _, smallest, largest } = state;
    let in_order = smallest <= scale && scale <= largest;
    let factors = growth > one && growth.is_finite() && backoff > zero && backoff < one;
    in_order && factors && interval > 0 && smallest > zero && smallest.is_normal() && largest.is_finite()
}

// --- Optimisers ------------------------------------------------------------------------------------------------------

/// A number and how far the roundings of a formula may have led from it, and whether it may be no number. What overflows on
/// the way does no harm.
#[derive(Clone, Copy, Debug)]
struct Rounded {
    value: Wide,
    error: Wide,
    may_fail: bool,
}

/// The arithmetic of a type.
#[derive(Clone, Copy)]
struct Arithmetic {
    unit: Wide,
    smallest: Wide,
    largest: Wide,
}

impl Arithmetic {
    fn of<T: Float>() -> Self {
        let unit = Wide::new(unit_roundoff::<T>());
        Self { unit, smallest: smallest::<T>(), largest: Wide::new(T::max_value()) }
    }

    fn exact<T: Float>(x: T) -> Rounded {
        Rounded { value: Wide::new(x), error: zero(), may_fail: false }
    }

    /// One rounding more.
    fn round(self, value: Wide, error: Wide, may_fail: bool) -> Rounded {
        let reach = value.abs() + error;
        let error = error + self.unit * reach + self.smallest;
        Rounded { value, error, may_fail }
    }

    /// Whether a result may be no number, or too large for one.
    fn may_fail(self, x: Rounded) -> bool {
        x.may_fail || x.value.abs() + x.error >= self.largest
    }

    /// `a b + c`, rounded once.
    fn mul_add(self, a: Rounded, b: Rounded, c: Rounded) -> Rounded {
        let error = a.value.abs() * b.error + a.error * b.value.abs() + a.error * b.error + c.error;
        self.round(a.value * b.value + c.value, error, a.may_fail || b.may_fail || c.may_fail)
    }

    fn mul(self, a: Rounded, b: Rounded) -> Rounded {
        self.mul_add(a, b, Self::exact(0.0_f64))
    }

    fn add(self, a: Rounded, b: Rounded) -> Rounded {
        self.mul_add(a, Self::exact(1.0_f64), b)
    }

    fn div(self, a: Rounded, b: Rounded) -> Rounded {
        let (value, least) = (a.value / b.value, b.value.abs() - b.error);
        if least <= zero() {
            return Rounded { value, error: value.abs(), may_fail: true };
        }
        let error = (a.value.abs() + a.error) / least - value.abs();
        self.round(value, error, a.may_fail || b.may_fail)
    }

    /// Of a negative number it fails.
    fn sqrt(self, a: Rounded) -> Rounded {
        let (least, most) = (a.value - a.error, a.value + a.error);
        if most < zero() || a.value < zero() {
            return Rounded { value: zero(), error: zero(), may_fail: true };
        }
        let least = if least < zero() { zero() } else { least };
        self.round(a.value.sqrt(), most.sqrt() - least.sqrt(), a.may_fail)
    }
}

impl Rounded {
    fn neg(self) -> Self {
        Self { value: -self.value, ..self }
    }

    #[track_caller]
    fn check<T: Float>(self, context: &str, got: T) {
        let distance = (Wide::new(got) - self.value).abs();
        assert!(got.is_finite() && distance <= self.error, "{context}: {got:e} for {self:?}");
    }
}

fn is_within<T: Float>(x: T, end: T) -> bool {
    x >= T::zero() && x < end
}

/// A setting of an optimiser: usual, or any.
fn setting<T: Float>(u: &mut Unstructured<'_>, usual: f64) -> Drawn<T> {
    Ok(match u.int_in_range(0..=11)? {
        0 => scalar(u)?,
        1..=3 => scalar::<T>(u)?.abs(),
        4 => T::zero(),
        _ => num(usual),
    })
}

/// A step is taken, or refused and nothing written: as it must be if an operand that is read is not finite, and only then
/// or if the formula fails.
#[track_caller]
fn check_step<T: Float>(
    name: &str,
    result: &Result<()>,
    [before, after]: [&[&[T]]; 2],
    read: &[&[T]],
    may_fail: impl Fn() -> bool,
) {
    if !read.iter().all(|x| all_finite(x)) {
        assert!(is_reported(result), "{name} overlooked what is not finite: {result:?}");
    } else if is_reported(result) {
        assert!(may_fail(), "{name}: {result:?}");
    }
    for (before, after) in before.iter().zip(after) {
        assert!(result.is_err() || all_finite(after), "{name}: {after:?}");
        if result.is_err() {
            assert_same(&format!("{name} wrote in spite of {result:?}"), after, before);
        }
    }
}

fn sgd<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    let sgd = Sgd { learning_rate: setting(u, 0.1)?, momentum: setting(u, 0.9)?, weight_decay: setting(u, 0.01)? };
    let w = vector::<T>(u)?;
    let (g, v) = (about::<T>(u, w.len())?, about::<T>(u, w.len())?);
    let Outcome { written: [new_w, new_v], result } = everywhere("sgd", [&w, &v], |[w, v]| sgd.step(w, &g, v));
    let Sgd { learning_rate, momentum, weight_decay } = sgd;
    let infinity = T::infinity();
    let refused = [g.len(), v.len()] != [w.len(); 2]
        || !is_within(learning_rate, infinity)
        || !is_within(momentum, T::one())
        || !is_within(weight_decay, infinity);
    assert_eq!(is_refused(&result), refused, "{sgd:?}: {result:?}");
    check_report(
        &result,
        &[("g", Operand::Slice(&g)), ("w", Operand::Slice(&w)), ("v", Operand::Slice(&v))],
        &[],
        &["w", "v"],
    );
    if refused {
        return Ok(());
    }
    let step = |i: usize| {
        let t = Arithmetic::of::<T>();
        let [rate, momentum, decay] = [-learning_rate, momentum, weight_decay].map(Arithmetic::exact);
        let [w, g] = [w[i], g[i]].map(Arithmetic::exact);
        let pull = t.mul_add(w, decay, g);
        let v = if momentum.value == zero() { pull } else { t.mul_add(Arithmetic::exact(v[i]), momentum, pull) };
        [t.mul_add(v, rate, w), v]
    };
    let read: [&[T]; 3] = [&w, &g, if momentum.is_zero() { &[] } else { &v }];
    let may_fail = || (0..w.len()).any(|i| step(i).iter().any(|&x| Arithmetic::of::<T>().may_fail(x)));
    check_step("sgd", &result, [&[&w, &v], &[&new_w, &new_v]], &read, may_fail);
    if result.is_ok() {
        for i in (0..w.len()).step_by(1 + w.len() / 32) {
            let context = format!("{sgd:?}, w {:e}, g {:e}, v {:e}", w[i], g[i], v[i]);
            let want = step(i);
            want[0].check(&context, new_w[i]);
            want[1].check(&context, new_v[i]);
        }
    }
    Ok(())
}

/// Adam or AdamW.
#[derive(Clone, Copy, Debug)]
struct Rule<T> {
    decays_weights: bool,
    settings: AdamW<T>,
    t: u32,
}

impl<T: Float> Rule<T> {
    fn draw(u: &mut Unstructured<'_>) -> Drawn<Self> {
        let settings = AdamW {
            learning_rate: setting(u, 1e-3)?,
            beta1: setting(u, 0.9)?,
            beta2: setting(u, 0.999)?,
            eps: setting(u, 1e-8)?,
            weight_decay: setting(u, 0.01)?,
        };
        let t = if u.arbitrary()? { u.int_in_range(0..=10)? } else { u.arbitrary()? };
        Ok(Self { decays_weights: u.arbitrary()?, settings, t })
    }

    fn is_refused(self) -> bool {
        let AdamW { learning_rate, beta1, beta2, eps, weight_decay } = self.settings;
        !is_within(learning_rate, T::infinity())
            || !is_within(beta1, T::one())
            || !is_within(beta2, T::one())
            || !is_within(weight_decay, T::infinity())
            || !(eps > T::zero() && eps.is_normal())
            || self.t == 0
    }

    fn apply(self, w: &mut [T], g: &[T], m: &mut [T], v: &mut [T]) -> Result<()> {
        let AdamW { learning_rate, beta1, beta2, eps, weight_decay } = self.settings;
        if self.decays_weights {
            self.settings.step(self.t, w, g, m, v)
        } else {
            Adam { learning_rate, beta1, beta2, eps, weight_decay }.step(self.t, w, g, m, v)
        }
    }

    /// The means after a step.
    fn means(self, w: T, g: T, m: T, v: T) -> [Rounded; 2] {
        let t = Arithmetic::of::<T>();
        let [w, g, decay] = [w, g, self.settings.weight_decay].map(Arithmetic::exact);
        let g = if self.decays_weights { g } else { t.mul_add(w, decay, g) };
        let mean = |old: T, beta: T, new: fn(Arithmetic, Rounded, Rounded) -> Rounded| {
            let rest = t.add(Arithmetic::exact(1.0_f64), Arithmetic::exact(-beta));
            let new = new(t, g, rest);
            if beta.is_zero() { new } else { t.mul_add(Arithmetic::exact(old), Arithmetic::exact(beta), new) }
        };
        let square = |t: Arithmetic, g, rest| t.mul(t.mul(g, rest), g);
        [mean(m, self.settings.beta1, Arithmetic::mul), mean(v, self.settings.beta2, square)]
    }

    /// The weight after a step, from the means.
    fn weight(self, w: T, [m, v]: [Rounded; 2], corrections: [Rounded; 2]) -> Rounded {
        let t = Arithmetic::of::<T>();
        let AdamW { learning_rate, eps, weight_decay, .. } = self.settings;
        let [w, learning_rate, eps, decay] = [w, learning_rate, eps, weight_decay].map(Arithmetic::exact);
        let (rate, correction) =
            (t.div(learning_rate, corrections[0]), t.div(Arithmetic::exact(1.0_f64), corrections[1]));
        let direction = t.div(m, t.add(t.sqrt(t.mul(v, correction)), eps));
        let w = if self.decays_weights { t.mul_add(w, t.mul(learning_rate, decay).neg(), w) } else { w };
        t.mul_add(direction, rate.neg(), w)
    }

    /// `1 - beta^t` for both means.
    fn corrections(self) -> [Rounded; 2] {
        [self.settings.beta1, self.settings.beta2].map(|beta| {
            let (power, steps) = (Wide::new(self.t as f64) * Wide::new(beta).ln(), f64::from(self.t));
            let value = if beta.is_zero() { Wide::new(1.0_f64) } else { -power.exp_m1() };
            // The rounding errors of the powers, as many as there are factors before they vanish.
            let roundings = 160.0 + 4.0 * steps.min(1.0 / (1.0 - wide(beta)));
            Rounded { value, error: value * Wide::new(roundings * unit_roundoff::<T>()), may_fail: false }
        })
    }
}

fn adam<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    let rule = Rule::<T>::draw(u)?;
    let w = vector::<T>(u)?;
    let (g, m, mut v) = (about::<T>(u, w.len())?, about::<T>(u, w.len())?, about::<T>(u, w.len())?);
    if !u.ratio(1, 8)? {
        v.iter_mut().for_each(|v| *v = v.abs());
    }
    let Outcome { written: [new_w, new_m, new_v], result } =
        everywhere("adam", [&w, &m, &v], |[w, m, v]| rule.apply(w, &g, m, v));
    let refused = [g.len(), m.len(), v.len()] != [w.len(); 3] || rule.is_refused();
    assert_eq!(is_refused(&result), refused, "{rule:?}: {result:?}");
    let inputs = [("g", &g), ("w", &w), ("m", &m), ("v", &v)].map(|(name, x)| (name, Operand::Slice(x)));
    check_report(&result, &inputs, &[], &["w", "m", "v"]);
    if refused {
        return Ok(());
    }
    let corrections = rule.corrections();
    let means = |i: usize| rule.means(w[i], g[i], m[i], v[i]);
    let may_fail = || {
        let fails = |i: usize| {
            let (t, [m, v]) = (Arithmetic::of::<T>(), means(i));
            [m, v, rule.weight(w[i], [m, v], corrections)].iter().any(|&x| t.may_fail(x))
        };
        (0..w.len()).any(fails)
    };
    let unless = |unread: T, x| if unread.is_zero() { &[][..] } else { x };
    let read = [&w[..], &g, unless(rule.settings.beta1, &m), unless(rule.settings.beta2, &v)];
    check_step("adam", &result, [&[&w, &m, &v], &[&new_w, &new_m, &new_v]], &read, may_fail);
    if result.is_ok() {
        for i in (0..w.len()).step_by(1 + w.len() / 16) {
            let context = format!("{rule:?}, w {:e}, g {:e}, m {:e}, v {:e}", w[i], g[i], m[i], v[i]);
            let want = means(i);
            want[0].check(&format!("m of {context}"), new_m[i]);
            want[1].check(&format!("v of {context}"), new_v[i]);
            let means = [new_m[i], new_v[i]].map(Arithmetic::exact);
            rule.weight(w[i], means, corrections).check(&format!("w of {context}"), new_w[i]);
        }
    }
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    let u = &mut Unstructured::new(data);
    let _ = if u.arbitrary().unwrap_or(false) { run::<f64>(u) } else { run::<f32>(u) };
});
