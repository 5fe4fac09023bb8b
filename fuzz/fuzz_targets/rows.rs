//! The softmax family and cross-entropy, on matrices of any layout.

#![no_main]

use arbitrary::{Result as Drawn, Unstructured};
use libfuzzer_sys::fuzz_target;
use nanproof::reference::{self, Wide};
use nanproof::*;
use nanproof_fuzz::*;

fn run<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    let long = u.ratio(1, 32)?;
    let rows = if long { u.int_in_range(0..=2)? } else { length(u, 40)? };
    let cols = if long { u.int_in_range(0..=5000)? } else { length(u, 70)? };
    let x = Matrix::<T>::draw(u, rows, cols, true)?;
    let out_shape = (nearly(u, rows)?, nearly(u, cols)?);
    let out = Matrix::<T>::draw(u, out_shape.0, out_shape.1, false)?;
    match u.int_in_range(0..=12)? {
        0 => {
            let options = Softmax {
                empty: if u.arbitrary()? { EmptyRow::Zeros } else { EmptyRow::Uniform },
                ..Softmax::default()
            };
            softmax_target(options, &x, &out);
        }
        1 => log_softmax_target(&x, &out),
        2 => logsumexp_target(u, &x)?,
        3 => {
            let dy = about::<T>(u, rows)?;
            logsumexp_backward_target(&x, &dy, &out);
        }
        4 => {
            let p = if u.arbitrary()? { forward(&x, |x, y| softmax(x, y)) } else { x };
            let dp = second(u, rows, cols)?;
            backward_target("softmax_backward", ["p", "dp"], &p, &dp, &out, softmax_backward);
        }
        5 => {
            let y = if u.arbitrary()? { forward(&x, |x, y| log_softmax(x, y)) } else { x };
            let dy = second(u, rows, cols)?;
            backward_target("log_softmax_backward", ["y", "dy"], &y, &dy, &out, log_softmax_backward);
        }
        9 => softmax_with_options(&Options::draw(u, rows, cols)?, &x, &second(u, rows, cols)?, &out),
        10 => log_softmax_with_options(&Options::draw(u, rows, cols)?, &x, &second(u, rows, cols)?, &out),
        11 => {
            let (options, dy) = (Options::draw(u, rows, cols)?, about(u, rows)?);
            logsumexp_with_options(&options, &x, &dy, &out);
        }
        12 => Case::draw(u, rows, cols)?.run(&x, &out),
        which => {
            let targets = classes(u, rows, cols)?;
            let ignore = if u.arbitrary()? { Some(targets.first().copied().unwrap_or(7)) } else { None };
            let reduction = if u.arbitrary()? { Reduction::Mean } else { Reduction::Sum };
            let g = if which == 7 { scalar(u)? } else { T::one() };
            cross_entropy_target(
                which,
                CrossEntropy { ignore, reduction, ..CrossEntropy::default() },
                &x,
                &targets,
                g,
                &out,
            );
        }
    }
    Ok(())
}

/// A class for each row, mostly one of the columns.
fn classes(u: &mut Unstructured<'_>, rows: usize, cols: usize) -> Drawn<Vec<u32>> {
    let (len, most) = (nearly(u, rows)?, cols.saturating_sub(1) as u32);
    let wild = u.ratio(1, 8)?;
    (0..len).map(|_| if wild && u.ratio(1, 8)? { u.arbitrary() } else { u.int_in_range(0..=most) }).collect()
}

fn second<T: Float>(u: &mut Unstructured<'_>, rows: usize, cols: usize) -> Drawn<Matrix<T>> {
    let (rows, cols) = (nearly(u, rows)?, nearly(u, cols)?);
    Matrix::draw(u, rows, cols, true)
}

/// The result of a forward function, whatever it is.
fn forward<T: Float>(x: &Matrix<T>, f: impl Fn(MatRef<'_, T>, MatMut<'_, T>) -> Result<usize>) -> Matrix<T> {
    let mut y = x.to_dense();
    let _ = f(x.read(), y.place.write(&mut y.data));
    y
}

fn is_plain<T: Float>(x: &[T]) -> bool {
    x.iter().all(|&x| x < T::infinity())
}

/// The rows to compare with the reference, which takes microseconds an element.
fn few_rows<T: Float>(x: &Matrix<T>) -> impl Iterator<Item = (usize, Vec<T>)> {
    let count = if x.place.cols == 0 { 0 } else { x.place.rows.min(64 / x.place.cols) };
    (0..count).map(|i| (i, x.row(i))).filter(|(_, x)| is_plain(x))
}

fn empty_rows<T: Float>(x: &Matrix<T>) -> usize {
    let is_empty = |&i: &usize| x.place.cols > 0 && x.row(i).iter().all(|&x| x == T::neg_infinity());
    (0..x.place.rows).filter(is_empty).count()
}

fn softmax_target<T: Float>(options: Softmax<'_, T>, x: &Matrix<T>, out: &Matrix<T>) {
    let f = |[x, _]: [MatRef<'_, T>; 2], y: MatMut<'_, T>| softmax_with(options, x, y).map(|n| (n, T::zero()));
    let (y, result) = everywhere_and_dense("softmax", [x, x], out, f);
    check_report(&result, &[("x", Operand::Matrix(x.read()))], &[], &[]);
    assert_eq!(is_refused(&result), !x.has_shape_of(out), "{result:?}");
    if is_refused(&result) {
        return;
    }
    assert_eq!(is_reported(&result), !is_plain(&elements(x.read())), "softmax: {result:?}");
    if let Ok((empty, _)) = result {
        assert_eq!(empty, empty_rows(x));
        assert!(elements(y.read()).iter().all(|y| (T::zero()..=T::one()).contains(y)));
    }
    for (i, x) in few_rows(x) {
        let is_empty = x.iter().all(|&x| x == T::neg_infinity());
        for (j, (got, want)) in y.row(i).into_iter().zip(reference::softmax(&x)).enumerate() {
            match (is_empty, options.empty) {
                (true, EmptyRow::Uniform) => assert!(same(got, T::one() / num(x.len() as f64))),
                _ => assert_ulp(&format!("softmax of {x:?} at {j}"), got, want, 2.0),
            }
        }
    }
}

fn log_softmax_target<T: Float>(x: &Matrix<T>, out: &Matrix<T>) {
    let f = |[x, _]: [MatRef<'_, T>; 2], y: MatMut<'_, T>| log_softmax(x, y).map(|n| (n, T::zero()));
    let (y, result) = everywhere_and_dense("log_softmax", [x, x], out, f);
    check_report(&result, &[("x", Operand::Matrix(x.read()))], &[("y", Operand::Matrix(y.read()))], &[]);
    assert_eq!(is_refused(&result), !x.has_shape_of(out), "{result:?}");
    if is_refused(&result) {
        return;
    }
    let (all_x, all_y) = (elements(x.read()), elements(y.read()));
    let is_fault = |(&x, &y): (&T, &T)| !y.is_finite() && !(x == T::neg_infinity() && y == x);
    let faults = !is_plain(&all_x) || all_x.iter().zip(&all_y).any(is_fault);
    assert_eq!(is_reported(&result), faults, "log_softmax: {result:?}");
    if let Ok((empty, _)) = result {
        assert_eq!(empty, empty_rows(x));
    }
    for (i, x) in few_rows(x) {
        for (j, (got, want)) in y.row(i).into_iter().zip(reference::log_softmax(&x)).enumerate() {
            assert_ulp(&format!("log_softmax of {x:?} at {j}"), got, want, 2.0);
        }
    }
}

fn logsumexp_target<T: Float>(u: &mut Unstructured<'_>, x: &Matrix<T>) -> Drawn<()> {
    let y = about::<T>(u, x.place.rows)?;
    let Outcome { written: [y], result } = everywhere("logsumexp", [&y], |[y]| logsumexp(x.read(), y));
    check_report(&result, &[("x", Operand::Matrix(x.read()))], &[("y", Operand::Slice(&y))], &[]);
    assert_eq!(is_refused(&result), y.len() != x.place.rows, "{result:?}");
    if is_refused(&result) {
        return Ok(());
    }
    assert_eq!(is_reported(&result), !is_plain(&elements(x.read())), "logsumexp: {result:?}");
    for (i, x) in few_rows(x) {
        let (got, want) = (y[i], reference::logsumexp(&x));
        let largest = x.iter().fold(T::neg_infinity(), |max, &x| max.max(x));
        if largest.is_finite() && largest < T::zero() {
            // Within 2 ULP of the maximum, which is no less than those of the result.
            let step = Wide::new(largest.abs().max(T::min_positive_value()) * T::epsilon());
            let error = step * Wide::new(2.0);
            let loose = want.abs() <= Wide::new(largest.abs());
            if loose { assert_near("logsumexp", got, want, error) } else { assert_ulp("logsumexp", got, want, 2.0) }
        } else {
            assert_ulp(&format!("logsumexp of {x:?}"), got, want, 2.0);
        }
    }
    Ok(())
}

fn logsumexp_backward_target<T: Float>(x: &Matrix<T>, dy: &[T], out: &Matrix<T>) {
    let f = |[x, _]: [MatRef<'_, T>; 2], dx: MatMut<'_, T>| logsumexp_backward(x, dy, dx).map(|()| (0, T::zero()));
    let (dx, result) = everywhere_and_dense("logsumexp_backward", [x, x], out, f);
    let inputs = [("x", Operand::Matrix(x.read())), ("dy", Operand::Slice(dy))];
    check_report(&result, &inputs, &[("dx", Operand::Matrix(dx.read()))], &[]);
    assert_eq!(is_refused(&result), !x.has_shape_of(out) || dy.len() != x.place.rows, "{result:?}");
    if is_refused(&result) || x.place.rows * x.place.cols == 0 {
        return;
    }
    // The gradient of a row of -inf is 0, whatever comes from upstream.
    let is_empty = |i: usize| x.row(i).iter().all(|&x| x == T::neg_infinity());
    let counts = |i: usize| !dy[i].is_finite() && !is_empty(i);
    let faults = !is_plain(&elements(x.read())) || (0..dy.len()).any(counts);
    assert_eq!(is_reported(&result), faults, "logsumexp_backward: {result:?}");
    assert!(faults || all_finite(&elements(dx.read())));
    for (i, x) in few_rows(x) {
        if dy[i].is_finite() {
            for (j, (got, want)) in dx.row(i).into_iter().zip(reference::logsumexp_backward(&x, dy[i])).enumerate() {
                assert_ulp(&format!("logsumexp_backward of {x:?}, {:e}, at {j}", dy[i]), got, want, 3.0);
            }
        }
    }
}

fn backward_target<T: Float>(
    name: &str,
    names: [&str; 2],
    x: &Matrix<T>,
    dy: &Matrix<T>,
    out: &Matrix<T>,
    backward: fn(MatRef<'_, T>, MatRef<'_, T>, MatMut<'_, T>) -> Result<()>,
) {
    let f = |[x, dy]: [MatRef<'_, T>; 2], dx: MatMut<'_, T>| backward(x, dy, dx).map(|()| (0, T::zero()));
    let (dx, result) = everywhere_and_dense(name, [x, dy], out, f);
    let inputs = [(names[0], Operand::Matrix(x.read())), (names[1], Operand::Matrix(dy.read()))];
    check_report(&result, &inputs, &[("dx", Operand::Matrix(dx.read()))], &[]);
    assert_eq!(is_refused(&result), !x.has_shape_of(out) || !x.has_shape_of(dy), "{result:?}");
    if !is_refused(&result) {
        assert_eq!(is_reported(&result), !all_finite(&elements(dx.read())), "{name}: {result:?}");
        // An entry of probability 0 gets exactly 0.
        let impossible = if name == "softmax_backward" { T::zero() } else { T::neg_infinity() };
        for (x, dx) in elements(x.read()).into_iter().zip(elements(dx.read())) {
            assert!(x != impossible || dx.is_zero(), "{name}: {dx:e} where nothing is possible");
        }
    }
}

fn cross_entropy_target<T: Float>(
    which: u8,
    options: CrossEntropy<'_, T>,
    x: &Matrix<T>,
    targets: &[u32],
    g: T,
    out: &Matrix<T>,
) {
    let returned = |loss: Loss<T>| (loss.count, loss.value);
    let f = |[x, _]: [MatRef<'_, T>; 2], dx: MatMut<'_, T>| match which {
        6 => cross_entropy(options, x, targets).map(returned),
        7 => cross_entropy_backward(options, x, targets, g, dx).map(|()| (0, T::zero())),
        _ => cross_entropy_with_gradient(options, x, targets, dx).map(returned),
    };
    let (dx, result) = everywhere_and_dense("cross_entropy", [x, x], out, f);
    let inputs = [("logits", Operand::Matrix(x.read())), ("g", Operand::Scalar(g))];
    check_report(&result, &inputs, &[("dlogits", Operand::Matrix(dx.read()))], &["losses", "loss"]);
    let counts = |&&target: &&u32| Some(target) != options.ignore;
    let count = targets.iter().filter(counts).count();
    let refused = targets.len() != x.place.rows
        || targets.iter().filter(counts).any(|&target| target as usize >= x.place.cols)
        || which != 6 && !x.has_shape_of(out);
    assert_eq!(is_refused(&result), refused, "{result:?}");
    if refused {
        return;
    }
    let read: Vec<Vec<T>> = (0..targets.len()).filter(|&i| counts(&&targets[i])).map(|i| x.row(i)).collect();
    let plain = read.iter().all(|x| is_plain(x));
    if !plain || !g.is_finite() {
        assert!(is_reported(&result), "cross_entropy overlooked a logit or g");
    }
    if which != 6 {
        for i in 0..targets.len() {
            if !counts(&&targets[i]) {
                assert!(dx.row(i).iter().all(|dx| dx.is_zero()), "a row that is ignored");
            }
        }
    }
    if let Ok((n, value)) = result {
        assert!(which == 7 || n == count);
        assert!(value >= T::zero() && value.is_finite() && (count > 0 || value.is_zero()));
        assert!(which == 6 || all_finite(&elements(dx.read())));
    }
    if !plain || !g.is_finite() || read.iter().flatten().count() > 64 {
        return;
    }
    if which != 7 && count == 1 {
        let want = reference::cross_entropy(options, x.read(), targets);
        match result {
            Ok((_, value)) => assert_ulp(&format!("cross_entropy of {read:?}, {targets:?}"), value, want, 2.0),
            Err(_) => assert!(want.abs() >= Wide::new(T::max_value()), "{result:?} for {:e}", want.to_f64()),
        }
    }
    if which != 6 {
        let want = reference::cross_entropy_backward(options, x.read(), targets, g);
        for (j, (got, want)) in elements(dx.read()).into_iter().zip(want).enumerate() {
            assert_ulp(&format!("cross_entropy_backward of {read:?}, {targets:?}, {g:e}, at {j}"), got, want, 3.0);
        }
    }
}

/// The options of softmax, and what they look at.
#[derive(Debug)]
struct Options<T> {
    scale: T,
    bias: Option<Matrix<T>>,
    mask: Option<Matrix<bool>>,
    causal: Option<isize>,
    empty: EmptyRow,
}

/// What a logit is read as.
#[derive(Clone, Copy, Debug)]
enum Logit {
    Number(Wide),
    Impossible,
    /// NaN, or `+inf` that was passed in.
    Fault,
}

impl<T: Float> Options<T> {
    fn draw(u: &mut Unstructured<'_>, rows: usize, cols: usize) -> Drawn<Self> {
        let scale = if u.arbitrary()? { *u.choose(&[1.0, 0.125, 2.0, -3.0].map(num))? } else { scalar(u)? };
        let bias = if u.arbitrary()? { Some(second(u, rows, cols)?) } else { None };
        let mask = if u.arbitrary()? { Some(mask(u, rows, cols)?) } else { None };
        let causal = match u.int_in_range(0..=3)? {
            0 => Some(u.int_in_range(-3..=8)?),
            1 if u.arbitrary()? => Some(u.arbitrary()?),
            _ => None,
        };
        let empty = if u.arbitrary()? { EmptyRow::Zeros } else { EmptyRow::Uniform };
        Ok(Self { scale, bias, mask, causal, empty })
    }

    fn read(&self) -> Softmax<'_, T> {
        let Self { scale, causal, empty, .. } = *self;
        let mask = self.mask.as_ref().map(|mask| mask.place.read(&mask.data));
        Softmax { scale, bias: self.bias.as_ref().map(Matrix::read), mask, causal, empty }
    }

    /// A row of logits as text, with what is to be read with it.
    fn show(&self, x: &Matrix<T>, i: usize) -> String {
        let bias = self.bias.as_ref().map(|bias| bias.row(i));
        let keep: Vec<_> = (0..x.place.cols).map(|j| self.keeps(i, j)).collect();
        format!("row {i}, {:e} * {:?} + {bias:?} where {keep:?}", self.scale, x.row(i))
    }

    fn fit(&self, x: &Matrix<T>) -> bool {
        let shape = (x.place.rows, x.place.cols);
        let places = [self.bias.as_ref().map(|bias| bias.place), self.mask.as_ref().map(|mask| mask.place)];
        self.scale.is_finite() && places.iter().flatten().all(|place| (place.rows, place.cols) == shape)
    }

    fn keeps(&self, i: usize, j: usize) -> bool {
        let causal = self.causal.is_none_or(|causal| j as i128 <= i as i128 + causal as i128);
        causal && self.read().mask.is_none_or(|mask| mask.get(i, j) == Some(true))
    }

    fn bias(&self, i: usize, j: usize) -> Option<T> {
        self.bias.as_ref().and_then(|bias| bias.read().get(i, j))
    }

    /// Whether row `i` is empty whatever the logits are.
    fn rule_out(&self, i: usize, cols: usize) -> bool {
        (0..cols).all(|j| !self.keeps(i, j) || self.bias(i, j) == Some(T::neg_infinity()))
    }

    fn logit(&self, x: &Matrix<T>, i: usize, j: usize) -> Logit {
        let (x, bias) = (x.read().get(i, j).expect("inside"), self.bias(i, j));
        let read = if !self.keeps(i, j) || x.is_finite() && bias == Some(T::neg_infinity()) {
            return Logit::Impossible;
        } else if x.is_finite() && bias.is_none_or(|bias| bias.is_finite()) {
            return Logit::Number(self.scaled_and_biased(x, bias.unwrap_or_else(T::zero)));
        } else if x.is_finite() {
            bias.unwrap_or_else(T::nan)
        } else {
            bias.map_or(x * self.scale, |bias| x * self.scale + bias)
        };
        if read == T::neg_infinity() { Logit::Impossible } else { Logit::Fault }
    }

    /// `scale x + bias`, the product and the sum rounded once each, in a range that nothing leaves.
    fn scaled_and_biased(&self, x: T, bias: T) -> Wide {
        let product = x * self.scale;
        if product.is_finite() {
            let (sum, quarter) = (product + bias, num::<T>(0.25));
            return if sum.is_finite() {
                Wide::new(sum)
            } else {
                Wide::new(product * quarter + bias * quarter) * four()
            };
        }
        // Both are normal: the powers of two in them, and what is left, between 1 and 2.
        let powers = [x, self.scale].map(|x| T::from_bits(x.abs().to_bits() >> T::FRACTION_BITS << T::FRACTION_BITS));
        let sum = x / powers[0] * (self.scale / powers[1]) + bias / powers[0] / powers[1];
        Wide::new(sum) * Wide::new(powers[0]) * Wide::new(powers[1])
    }
}

fn four() -> Wide {
    Wide::new(4.0_f64)
}

fn mask(u: &mut Unstructured<'_>, rows: usize, cols: usize) -> Drawn<Matrix<bool>> {
    let (rows, cols) = (nearly(u, rows)?, nearly(u, cols)?);
    let place = Place::draw(u, rows, cols, true)?;
    let (pattern, period) = (u.arbitrary::<u64>()?, u.int_in_range(1..=64)?);
    Ok(Matrix { place, data: (0..place.len()).map(|i| pattern >> (i % period) & 1 == 1).collect() })
}

/// A row of logits as they are read, by the definitions.
struct Row {
    logits: Vec<Logit>,
    max: Option<Wide>,
    /// The sum of `exp(x - max)`, without one term that is 1.
    rest: Wide,
}

impl Row {
    fn new<T: Float>(options: &Options<T>, x: &Matrix<T>, i: usize) -> Self {
        let logits: Vec<_> = (0..x.place.cols).map(|j| options.logit(x, i, j)).collect();
        let number = |(j, x): (usize, &Logit)| if let Logit::Number(x) = *x { Some((j, x)) } else { None };
        let numbers = || logits.iter().enumerate().filter_map(number);
        let largest = numbers().reduce(|a, b| if a.1 < b.1 { b } else { a });
        let (first, max) = largest.unwrap_or((0, Wide::new(0.0_f64)));
        let others = numbers().filter(|&(j, _)| j != first);
        let rest = others.fold(Wide::new(0.0_f64), |sum, (_, x)| sum + (x - max).exp());
        Self { max: largest.map(|largest| largest.1), rest, logits }
    }

    fn has_fault(&self) -> bool {
        self.logits.iter().any(|x| matches!(x, Logit::Fault))
    }

    fn is_empty(&self) -> bool {
        self.logits.iter().all(|x| matches!(x, Logit::Impossible))
    }

    /// A number for each logit: from its distance to the maximum, or another where it is impossible.
    fn map(&self, impossible: f64, f: impl Fn(Wide) -> Wide) -> Vec<Wide> {
        let result = |x: &Logit| match (*x, self.max) {
            (Logit::Number(x), Some(max)) => f(x - max),
            _ => Wide::new(impossible),
        };
        self.logits.iter().map(result).collect()
    }

    fn probabilities(&self) -> Vec<Wide> {
        self.map(0.0, |x| x.exp() / (Wide::new(1.0_f64) + self.rest))
    }

    fn log_probabilities(&self) -> Vec<Wide> {
        self.map(f64::NEG_INFINITY, |x| x - self.rest.ln_1p())
    }
}

fn rows_read<T: Float>(options: &Options<T>, x: &Matrix<T>) -> Vec<Row> {
    let rows = if x.place.cols == 0 { 0 } else { x.place.rows };
    (0..rows).map(|i| Row::new(options, x, i)).collect()
}

/// The rows to compare, which takes microseconds an element.
fn few(rows: &[Row]) -> impl Iterator<Item = (usize, &Row)> {
    let count = 64 / rows.first().map_or(1, |row| row.logits.len());
    rows.iter().enumerate().take(count).filter(|(_, row)| !row.has_fault())
}

const AS_READ: &str = "scale * x + bias";

fn read_operands<'a, T: Float>(options: &'a Options<T>, x: &'a Matrix<T>) -> Vec<(&'static str, Operand<'a, T>)> {
    let bias = options.bias.as_ref().map(|bias| ("bias", Operand::Matrix(bias.read())));
    [("x", Operand::Matrix(x.read()))].into_iter().chain(bias).collect()
}

fn softmax_with_options<T: Float>(options: &Options<T>, x: &Matrix<T>, dp: &Matrix<T>, out: &Matrix<T>) {
    let f = |[x]: [MatRef<'_, T>; 1], y: MatMut<'_, T>| softmax_with(options.read(), x, y);
    let (y, result) = everywhere_and_dense("softmax_with", [x], out, f);
    check_report(&result, &read_operands(options, x), &[("y", Operand::Matrix(y.read()))], &[AS_READ]);
    assert_eq!(is_refused(&result), !x.has_shape_of(out) || !options.fit(x), "{result:?}");
    if is_refused(&result) {
        return;
    }
    let rows = rows_read(options, x);
    assert_eq!(is_reported(&result), rows.iter().any(Row::has_fault), "softmax_with {options:?}: {result:?}");
    if let Ok(empty) = result {
        assert_eq!(empty, rows.iter().filter(|row| row.is_empty()).count());
    }
    for (i, row) in few(&rows) {
        let even = row.is_empty() && options.empty == EmptyRow::Uniform;
        for (j, (got, want)) in y.row(i).into_iter().zip(row.probabilities()).enumerate() {
            let want = if even { Wide::new(T::one() / num(x.place.cols as f64)) } else { want };
            assert_ulp(&format!("softmax_with of {} at {j}", options.show(x, i)), got, want, 2.0);
        }
    }
    let dense = x.to_dense();
    let Outcome { written: [in_place], result: in_place_result } =
        everywhere("softmax_in_place", [&dense.data], |[x]| softmax_in_place(options.read(), dense.place.write(x)));
    assert_eq!(in_place_result.is_ok(), result.is_ok(), "{in_place_result:?}, {result:?}");
    let want = if result.is_ok() { y.to_dense() } else { dense };
    assert_same("softmax_in_place", &in_place, &want.data);
    if result.is_ok() {
        softmax_gradient_with_options(options, &y, dp, out);
    }
}

fn softmax_gradient_with_options<T: Float>(options: &Options<T>, p: &Matrix<T>, dp: &Matrix<T>, out: &Matrix<T>) {
    let name = "softmax_backward_with";
    let f = |[p, dp]: [MatRef<'_, T>; 2], dx: MatMut<'_, T>| softmax_backward_with(options.read(), p, dp, dx);
    let (dx, result) = everywhere_and_dense(name, [p, dp], out, f);
    let inputs = [("p", Operand::Matrix(p.read())), ("dp", Operand::Matrix(dp.read()))];
    check_report(&result, &inputs, &[("dx", Operand::Matrix(dx.read()))], &[]);
    assert_eq!(is_refused(&result), !p.has_shape_of(dp), "{result:?}");
    if is_refused(&result) {
        return;
    }
    assert_eq!(is_reported(&result), !all_finite(&elements(dx.read())), "{name}: {result:?}");
    let cols = p.place.cols;
    for i in 0..if cols == 0 { 0 } else { p.place.rows.min(64 / cols) } {
        let is_constant = options.empty == EmptyRow::Uniform && options.rule_out(i, cols);
        let (p, dp) = (if is_constant { vec![T::zero(); cols] } else { p.row(i) }, dp.row(i));
        let terms = p.iter().zip(&dp).filter(|(p, _)| !p.is_zero());
        if terms.clone().any(|(_, dp)| !dp.is_finite()) {
            assert!(is_reported(&result), "{name} of {p:?}, {dp:?}");
            continue;
        }
        let sum = terms.fold(Wide::new(0.0_f64), |sum, (&p, &dp)| sum + Wide::new(p) * Wide::new(dp));
        let shown = format!("{p:?}, {dp:?}, scale {:e}", options.scale);
        for (j, want) in reference::softmax_backward(&p, &dp).into_iter().enumerate() {
            let (got, scale, p) = (dx.row(i)[j], Wide::new(options.scale), Wide::new(p[j]));
            let (u, dp) = (Wide::new(unit_roundoff::<T>()), Wide::new(dp[j]).abs());
            let terms = p * scale.abs() * (dp + dp + Wide::new(3.0_f64) * sum.abs());
            let underflow = smallest::<T>() * (Wide::new(1.0_f64) + p * Wide::new(cols as f64));
            let error = u * (terms + (want * scale).abs()) + underflow;
            let zero = p == Wide::new(0.0_f64);
            assert!(!zero || got.is_zero(), "{name} of {p:?}: {got:e} where nothing is possible");
            if !zero {
                assert_near(&format!("{name} of {shown} at {j}"), got, want * scale, error);
            }
        }
    }
}

fn log_softmax_with_options<T: Float>(options: &Options<T>, x: &Matrix<T>, dy: &Matrix<T>, out: &Matrix<T>) {
    let f = |[x]: [MatRef<'_, T>; 1], y: MatMut<'_, T>| log_softmax_with(options.read(), x, y);
    let (y, result) = everywhere_and_dense("log_softmax_with", [x], out, f);
    check_report(&result, &read_operands(options, x), &[("y", Operand::Matrix(y.read()))], &[AS_READ]);
    assert_eq!(is_refused(&result), !x.has_shape_of(out) || !options.fit(x), "{result:?}");
    if is_refused(&result) {
        return;
    }
    let rows = rows_read(options, x);
    let is_sunk = |(x, y): (&Logit, &T)| matches!(x, Logit::Number(_)) && !y.is_finite();
    let overflows = |(i, row): (usize, &Row)| row.logits.iter().zip(&y.row(i)).any(is_sunk);
    let faults = rows.iter().any(Row::has_fault) || rows.iter().enumerate().any(overflows);
    assert_eq!(is_reported(&result), faults, "log_softmax_with {options:?}: {result:?}");
    if let Ok(empty) = result {
        assert_eq!(empty, rows.iter().filter(|row| row.is_empty()).count());
    }
    for (i, row) in few(&rows) {
        for (j, (got, want)) in y.row(i).into_iter().zip(row.log_probabilities()).enumerate() {
            assert_ulp(&format!("log_softmax_with of {} at {j}", options.show(x, i)), got, want, 2.0);
        }
    }
    if result.is_ok() {
        log_softmax_gradient_with_options(options, &y, dy, out);
    }
}

fn log_softmax_gradient_with_options<T: Float>(options: &Options<T>, y: &Matrix<T>, dy: &Matrix<T>, out: &Matrix<T>) {
    let name = "log_softmax_backward_with";
    let f = |[y, dy]: [MatRef<'_, T>; 2], dx: MatMut<'_, T>| log_softmax_backward_with(options.read(), y, dy, dx);
    let (dx, result) = everywhere_and_dense(name, [y, dy], out, f);
    let inputs = [("y", Operand::Matrix(y.read())), ("dy", Operand::Matrix(dy.read()))];
    check_report(&result, &inputs, &[("dx", Operand::Matrix(dx.read()))], &[]);
    assert_eq!(is_refused(&result), !y.has_shape_of(dy), "{result:?}");
    if is_refused(&result) {
        return;
    }
    assert_eq!(is_reported(&result), !all_finite(&elements(dx.read())), "{name}: {result:?}");
    let cols = y.place.cols;
    for i in 0..if cols == 0 { 0 } else { y.place.rows.min(64 / cols) } {
        let (y, dy) = (y.row(i), dy.row(i));
        let terms = y.iter().zip(&dy).filter(|(y, _)| y.is_finite()).map(|(_, dy)| *dy);
        if terms.clone().any(|dy| !dy.is_finite()) {
            assert!(is_reported(&result), "{name} of {y:?}, {dy:?}");
            continue;
        }
        let sum = terms.fold(Wide::new(0.0_f64), |sum, dy| sum + Wide::new(dy));
        for (j, want) in reference::log_softmax_backward(&y, &dy).into_iter().enumerate() {
            let (got, scale) = (dx.row(i)[j], Wide::new(options.scale));
            if !y[j].is_finite() {
                assert!(got.is_zero(), "{name} of {y:?}: {got:e} where nothing is possible");
                continue;
            }
            let (u, p) = (Wide::new(unit_roundoff::<T>()), Wide::new(y[j]).exp());
            let terms = scale.abs() * (Wide::new(dy[j]).abs() + Wide::new(5.0_f64) * p * sum.abs());
            let error = u * (terms + (want * scale).abs()) + smallest::<T>();
            assert_near(
                &format!("{name} of {y:?}, {dy:?}, scale {:e}, at {j}", options.scale),
                got,
                want * scale,
                error,
            );
        }
    }
}

fn logsumexp_with_options<T: Float>(options: &Options<T>, x: &Matrix<T>, dy: &[T], out: &Matrix<T>) {
    let start = vec![T::nan(); x.place.rows];
    let Outcome { written: [y], result } =
        everywhere("logsumexp_with", [&start], |[y]| logsumexp_with(options.read(), x.read(), y));
    let inputs = read_operands(options, x);
    check_report(&result, &inputs, &[("y", Operand::Slice(&y))], &[AS_READ]);
    assert_eq!(is_refused(&result), !options.fit(x), "{result:?}");
    let rows = rows_read(options, x);
    if is_refused(&result) || x.place.cols == 0 {
        return;
    }
    let overflows = |(i, row): (usize, &Row)| !row.has_fault() && !row.is_empty() && !y[i].is_finite();
    let faults = rows.iter().any(Row::has_fault);
    let overflow = rows.iter().enumerate().any(overflows);
    assert_eq!(is_reported(&result), faults || overflow, "logsumexp_with {options:?}: {result:?}");
    for (i, row) in few(&rows) {
        let Some(max) = row.max else {
            assert_eq!(y[i], T::neg_infinity());
            continue;
        };
        // Within 2 ULP of the maximum where that is negative and nearly cancelled.
        let want = max + row.rest.ln_1p();
        let size = if want.abs() < max.abs() { max.abs() } else { want.abs() };
        let ulps = Wide::new(T::epsilon()) * Wide::new(2.0_f64);
        let error = ulps * size + smallest::<T>();
        let context = format!("logsumexp_with of {}", options.show(x, i));
        if max < Wide::new(0.0_f64) {
            assert_near(&context, y[i], want, error);
        } else {
            assert_ulp(&context, y[i], want, 2.0);
        }
    }
    logsumexp_gradient_with_options(options, x, &rows, dy, out);
}

fn logsumexp_gradient_with_options<T: Float>(
    options: &Options<T>,
    x: &Matrix<T>,
    rows: &[Row],
    dy: &[T],
    out: &Matrix<T>,
) {
    let name = "logsumexp_backward_with";
    let f = |[x]: [MatRef<'_, T>; 1], dx: MatMut<'_, T>| logsumexp_backward_with(options.read(), x, dy, dx);
    let (dx, result) = everywhere_and_dense(name, [x], out, f);
    let mut inputs = read_operands(options, x);
    inputs.push(("dy", Operand::Slice(dy)));
    check_report(&result, &inputs, &[("dx", Operand::Matrix(dx.read()))], &[AS_READ]);
    assert_eq!(is_refused(&result), !x.has_shape_of(out) || dy.len() != x.place.rows, "{result:?}");
    if is_refused(&result) {
        return;
    }
    let counts = |(i, row): (usize, &Row)| row.has_fault() || !row.is_empty() && !dy[i].is_finite();
    let faults = rows.iter().enumerate().any(counts) || !all_finite(&elements(dx.read()));
    assert_eq!(is_reported(&result), faults, "{name} {options:?}: {result:?}");
    for (i, row) in few(rows).filter(|(i, _)| dy[*i].is_finite()) {
        let factor = Wide::new(dy[i]) * Wide::new(options.scale);
        for (j, (got, p)) in dx.row(i).into_iter().zip(row.probabilities()).enumerate() {
            assert_ulp(&format!("{name} of {}, {:e} at {j}", options.show(x, i), dy[i]), got, factor * p, 4.0);
        }
    }
}

/// What a cross-entropy is asked for with.
#[derive(Debug)]
struct Case<T> {
    which: u8,
    ignore: Option<u32>,
    reduction: Reduction,
    smoothing: T,
    weights: Option<Vec<T>>,
    z_loss: T,
    mask: Option<Matrix<bool>>,
    classes: Vec<u32>,
    probabilities: Option<Matrix<T>>,
    g: T,
}

impl<T: Float> Case<T> {
    fn draw(u: &mut Unstructured<'_>, rows: usize, cols: usize) -> Drawn<Self> {
        let which = u.int_in_range(0..=2)?;
        let classes = classes(u, rows, cols)?;
        let mut weights = if u.arbitrary()? { Some(about::<T>(u, cols)?) } else { None };
        if u.ratio(15, 16)? {
            weights.iter_mut().flatten().for_each(|weight| *weight = weight.abs());
        }
        let part = |u: &mut Unstructured<'_>, usual: f64| -> Drawn<T> {
            Ok(match u.int_in_range(0..=3)? {
                0 | 1 => T::zero(),
                2 => num(usual),
                _ => scalar::<T>(u)?.abs(),
            })
        };
        Ok(Self {
            which,
            ignore: if u.arbitrary()? { classes.first().copied() } else { None },
            reduction: if u.arbitrary()? { Reduction::Mean } else { Reduction::Sum },
            smoothing: part(u, 0.125)?,
            z_loss: part(u, 1e-4)?,
            weights,
            mask: if u.arbitrary()? { Some(mask(u, rows, cols)?) } else { None },
            classes,
            probabilities: if u.arbitrary()? { Some(second(u, rows, cols)?) } else { None },
            g: if which == 1 { scalar(u)? } else { T::one() },
        })
    }

    fn options(&self) -> CrossEntropy<'_, T> {
        let Self { ignore, reduction, smoothing, z_loss, .. } = *self;
        let mask = self.mask.as_ref().map(|mask| mask.place.read(&mask.data));
        CrossEntropy { ignore, reduction, smoothing, weights: self.weights.as_deref(), z_loss, mask }
    }

    fn targets(&self) -> Targets<'_, T> {
        match &self.probabilities {
            Some(q) => Targets::Probabilities(q.read()),
            None => Targets::Classes(&self.classes),
        }
    }

    fn fits(&self, x: &Matrix<T>) -> bool {
        let shape = (x.place.rows, x.place.cols);
        let is_weight = |x: T| x >= T::zero() && x.is_finite();
        let weights = self.weights.as_ref();
        let is_class = |&class: &u32| Some(class) == self.ignore || (class as usize) < x.place.cols;
        self.smoothing <= T::one()
            && is_weight(self.z_loss)
            && weights.is_none_or(|weights| weights.len() == shape.1 && weights.iter().all(|&weight| is_weight(weight)))
            && self.mask.as_ref().is_none_or(|mask| (mask.place.rows, mask.place.cols) == shape)
            && match &self.probabilities {
                Some(q) => q.has_shape_of(x),
                None => self.classes.len() == shape.0 && self.classes.iter().all(is_class),
            }
    }

    fn keeps(&self, i: usize, j: usize) -> bool {
        self.options().mask.is_none_or(|mask| mask.get(i, j) == Some(true))
    }

    fn weight(&self, j: usize) -> Wide {
        self.weights.as_ref().map_or(Wide::new(1.0_f64), |weights| Wide::new(weights[j]))
    }

    fn counts(&self, i: usize) -> bool {
        let class = || self.classes[i];
        self.probabilities.is_some()
            || Some(class()) != self.ignore && self.weight(class() as usize) != Wide::new(0.0_f64)
    }

    /// The logits of a row that are read.
    fn read_row(&self, x: &Matrix<T>, i: usize) -> Vec<T> {
        let read = |(j, x)| if self.keeps(i, j) { x } else { T::neg_infinity() };
        x.row(i).into_iter().enumerate().map(read).collect()
    }

    /// The magnitude of what each class of a row counts, at most.
    fn labels(&self, i: usize, cols: usize) -> Vec<Wide> {
        let kept = (0..cols).filter(|&j| self.keeps(i, j)).count();
        let q = |j| match &self.probabilities {
            Some(q) => Wide::new(q.read().get(i, j).expect("inside")).abs(),
            None => Wide::new(f64::from(u8::from(self.classes[i] as usize == j))),
        };
        let (one, smoothing) = (Wide::new(1.0_f64), Wide::new(self.smoothing));
        let even = |j| if self.keeps(i, j) { smoothing / Wide::new(kept as f64) } else { Wide::new(0.0_f64) };
        (0..cols).map(|j| self.weight(j) * ((one - smoothing) * q(j) + even(j))).collect()
    }

    /// What the sum of the losses is divided by.
    fn divisor(&self, rows: usize) -> Wide {
        let counted = (0..rows).filter(|&i| self.counts(i));
        let weight = |i: usize| match self.probabilities {
            Some(_) => Wide::new(1.0_f64),
            None => self.weight(self.classes[i] as usize),
        };
        let total = counted.fold(Wide::new(0.0_f64), |sum, i| sum + weight(i));
        let is_mean = self.reduction == Reduction::Mean && total != Wide::new(0.0_f64);
        if is_mean { total } else { Wide::new(1.0_f64) }
    }

    fn run(&self, x: &Matrix<T>, out: &Matrix<T>) {
        let returned = |loss: Loss<T>| (loss.count, loss.value);
        let (options, targets) = (self.options(), self.targets());
        let f = |[x]: [MatRef<'_, T>; 1], dx: MatMut<'_, T>| match self.which {
            0 => cross_entropy(options, x, targets).map(returned),
            1 => cross_entropy_backward(options, x, targets, self.g, dx).map(|()| (0, T::zero())),
            _ => cross_entropy_with_gradient(options, x, targets, dx).map(returned),
        };
        let (rows, cols) = (x.place.rows, x.place.cols);
        if cols == 0 {
            return;
        }
        let (dx, result) = everywhere_and_dense("cross_entropy", [x], out, f);
        let q = self.probabilities.as_ref().map(|q| ("targets", Operand::Matrix(q.read())));
        let inputs = [("logits", Operand::Matrix(x.read())), ("g", Operand::Scalar(self.g))];
        let inputs: Vec<_> = inputs.into_iter().chain(q).collect();
        check_report(&result, &inputs, &[("dlogits", Operand::Matrix(dx.read()))], &["losses", "loss"]);
        assert_eq!(is_refused(&result), !self.fits(x) || self.which != 0 && !x.has_shape_of(out), "{result:?}");
        if is_refused(&result) || rows == 0 {
            return;
        }
        let counted: Vec<usize> = (0..rows).filter(|&i| self.counts(i)).collect();
        let is_good_row = |&i: &usize| self.read_row(x, i).iter().all(|&x| x < T::infinity());
        let q_is_finite = self.probabilities.as_ref().is_none_or(|q| all_finite(&elements(q.read())));
        if !counted.iter().all(is_good_row) || !self.g.is_finite() || !q_is_finite {
            assert!(is_reported(&result), "overlooked what is not finite");
            return;
        }
        if rows * cols <= 64 {
            self.compare(x, &counted, &dx, &result);
        }
        if self.which == 2 {
            self.compare_in_place(x, &dx, &result);
        }
    }

    /// Holds what came out to the reference, row by row.
    fn compare(&self, x: &Matrix<T>, counted: &[usize], dx: &Matrix<T>, result: &Result<(usize, T)>) {
        let (options, zero, u) = (self.options(), Wide::new(0.0_f64), Wide::new(unit_roundoff::<T>()));
        let (rows, cols) = (x.place.rows, x.place.cols);
        let context = format!("{self:?} of {x:?}");
        let divisor = self.divisor(rows);
        let z = Wide::new(self.z_loss);
        // What the log-sum-exp of a row, its factor, and what it is worth may be wrong by. The factor is rounded as a subnormal
        // number where weights are brought near 1.
        let log_sum = |i: usize| {
            let row = self.read_row(x, i);
            let max = row.iter().fold(T::neg_infinity(), |max, &x| max.max(x));
            let lse = reference::logsumexp(&row);
            let size = if lse.abs() < Wide::new(max).abs() { Wide::new(max).abs() } else { lse.abs() };
            (lse, u * four() * size + smallest::<T>())
        };
        let factor_error = if self.z_loss.is_zero() || self.weights.is_none() { zero } else { smallest::<T>() };
        let z_error = |i: usize| {
            let (lse, error) = log_sum(i);
            let square_error = lse.abs() * error * Wide::new(2.0_f64) + error * error;
            if self.z_loss.is_zero() { zero } else { z * square_error / divisor + factor_error * lse * lse }
        };
        let want = reference::cross_entropy(options, x.read(), self.targets());
        let magnitudes = self.probabilities.as_ref().map(|q| {
            let q = q.to_dense();
            Matrix { data: q.data.iter().map(|q| q.abs()).collect(), place: q.place }
        });
        let size = match &magnitudes {
            Some(q) => reference::cross_entropy(options, x.read(), q.read()),
            None => want,
        };
        let z_error = counted.iter().fold(zero, |sum, &i| sum + z_error(i));
        let underflow = smallest::<T>() * Wide::new((rows * cols + 1) as f64);
        let error = u * Wide::new(8.0_f64) * size + z_error + underflow;
        // A loss that overflows is reported with the gradient, too; as is one that is made of labels that do.
        let largest = Wide::new(T::max_value());
        let fits = |&i: &usize| self.labels(i, cols).into_iter().all(|label| label < largest);
        let mut may_overflow = !(size + error < largest && counted.iter().all(fits));
        if let (Ok((count, value)), true) = (result, self.which != 1) {
            assert_eq!(*count, counted.len());
            assert_near(&context, *value, want, error);
        }
        if self.which != 0 {
            let factor = Wide::new(self.g).abs() / divisor;
            let want = reference::cross_entropy_backward(options, x.read(), self.targets(), self.g);
            for i in 0..rows {
                let labels = if self.counts(i) { self.labels(i, cols) } else { vec![zero; cols] };
                let (lse, lse_error) = if self.z_loss.is_zero() { (zero, zero) } else { log_sum(i) };
                let slope = (z + z) * lse.abs();
                let total = labels.iter().fold(slope, |sum, &label| sum + label);
                let p = if self.counts(i) { reference::softmax(&self.read_row(x, i)) } else { vec![zero; cols] };
                for j in 0..cols {
                    let (got, want) = (dx.row(i)[j], want[i * cols + j]);
                    let (shared, label) = (factor * total * p[j], factor * labels[j]);
                    let term = if shared < label { label } else { shared };
                    let slope_error = (z + z) * lse_error * factor + factor_error * lse.abs();
                    let error = u * Wide::new(8.0_f64) * term + p[j] * slope_error + four() * smallest::<T>();
                    may_overflow |= !(want.abs() + error < largest);
                    if !self.keeps(i, j) || !self.counts(i) {
                        assert!(got.is_zero(), "{context}: {got:e} at {i}, {j}, which does not count");
                    } else if result.is_err() {
                        // A gradient beside a loss that overflows is not promised.
                    } else if self.smoothing.is_zero() && self.z_loss.is_zero() && self.probabilities.is_none() {
                        assert_ulp(&format!("{context} at {i}, {j}"), got, want, 3.0);
                    } else {
                        assert_near(&format!("{context} at {i}, {j}"), got, want, error);
                    }
                }
            }
        }
        assert!(result.is_ok() || may_overflow, "{context}: {result:?}");
    }

    fn compare_in_place(&self, x: &Matrix<T>, dx: &Matrix<T>, result: &Result<(usize, T)>) {
        let dense = x.to_dense();
        let f = |x: &mut [T]| cross_entropy_in_place(self.options(), dense.place.write(x), self.targets());
        let Outcome { written: [in_place], result: in_place_result } =
            everywhere("cross_entropy_in_place", [&dense.data], |[x]| f(x));
        assert_eq!(in_place_result.is_ok(), result.is_ok(), "{in_place_result:?}, {result:?}");
        if let (Ok(loss), Ok((count, value))) = (in_place_result, result) {
            assert_eq!(loss.count, *count);
            assert_same("cross_entropy_in_place", &in_place, &dx.to_dense().data);
            assert_same("the loss in place", &[loss.value], &[*value]);
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let u = &mut Unstructured::new(data);
    let _ = if u.arbitrary().unwrap_or(false) { run::<f64>(u) } else { run::<f32>(u) };
});
