//! The matrix product and its gradients, with any factors and layouts.

#![no_main]

use arbitrary::{Result as Drawn, Unstructured};
use libfuzzer_sys::fuzz_target;
use nanproof::reference::{self, Wide};
use nanproof::*;
use nanproof_fuzz::*;

fn run<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    let deep = u.ratio(1, 8)?;
    let (m, n) = if deep { (length(u, 3)?, length(u, 3)?) } else { (length(u, 40)?, length(u, 70)?) };
    let k = if deep { u.int_in_range(250..=1100)? } else { length(u, 40)? };
    let a = Matrix::<T>::draw(u, m, k, true)?;
    let (b_rows, c_cols) = (nearly(u, k)?, nearly(u, n)?);
    let b = Matrix::<T>::draw(u, b_rows, n, true)?;
    let c = Matrix::<T>::draw(u, m, c_cols, false)?;
    if u.ratio(1, 4)? {
        let (bias_len, w) = (nearly(u, n)?, Matrix::<T>::draw(u, n, k, true)?);
        let bias = Matrix::<T>::draw(u, 1, bias_len, true)?.to_dense().data;
        let activation = *u.choose(&[Activation::Identity, Activation::Relu, Activation::Tanh])?;
        layer(activation, &a, &w, &bias, &c);
    } else if u.arbitrary()? {
        let options = match u.int_in_range(0..=3)? {
            0 => Matmul::default(),
            1 => Matmul { alpha: T::one(), beta: T::one() },
            _ => Matmul { alpha: scalar(u)?, beta: scalar(u)? },
        };
        forward(options, &a, &b, &c);
    } else {
        let (da_rows, db_cols) = (nearly(u, m)?, nearly(u, n)?);
        let da = Matrix::<T>::draw(u, da_rows, k, false)?;
        let db = Matrix::<T>::draw(u, b_rows, db_cols, false)?;
        backward(&a, &b, &c, &da, &db);
    }
    Ok(())
}

/// The linear layer, as it is defined: a product onto rows of the bias, then the activation.
fn layer<T: Float>(activation: Activation, x: &Matrix<T>, w: &Matrix<T>, bias: &[T], y: &Matrix<T>) {
    let f = |[data]: [&mut [T]; 1]| linear(activation, x.read(), w.read(), Some(bias), y.place.write(data));
    let Outcome { written: [data], result } = everywhere("linear", [&y.data], f);
    let (m, n) = (x.place.rows, w.place.rows);
    let refused = w.place.cols != x.place.cols || (y.place.rows, y.place.cols) != (m, n) || bias.len() != n;
    assert_eq!(is_refused(&result), refused, "{result:?}");
    if refused {
        return;
    }
    let mut z = bias.repeat(m);
    let options = Matmul { beta: T::one(), ..Matmul::default() };
    let _ = matmul_with(options, x.read(), w.read().t(), MatMut::new(&mut z, m, n).unwrap());
    let mut want = z.clone();
    let _ = match activation {
        Activation::Relu => relu(&z, &mut want),
        Activation::Tanh => tanh(&z, &mut want),
        _ => Ok(()),
    };
    assert_same("linear", &Matrix { place: y.place, data }.to_dense().data, &want);
    assert_eq!(is_reported(&result), !all_finite(&want), "linear: {result:?}");
}

fn forward<T: Float>(options: Matmul<T>, a: &Matrix<T>, b: &Matrix<T>, c: &Matrix<T>) {
    let f = |[data]: [&mut [T]; 1]| matmul_with(options, a.read(), b.read(), c.place.write(data));
    let Outcome { written: [data], result } = everywhere("matmul", [&c.data], f);
    let got = Matrix { place: c.place, data };
    let (dense_a, dense_b, mut dense_c) = (a.to_dense(), b.to_dense(), c.to_dense());
    let old = dense_c.data.clone();
    let dense = matmul_with(options, dense_a.read(), dense_b.read(), dense_c.place.write(&mut dense_c.data));
    assert_same("matmul, strided and dense", &got.to_dense().data, &dense_c.data);
    assert_eq!(format!("{result:?}"), format!("{dense:?}"), "matmul, strided and dense");

    let Matmul { alpha, beta } = options;
    let (m, k, n) = (a.place.rows, a.place.cols, b.place.cols);
    // With alpha = 0 nothing of A and B is read.
    let read = if alpha.is_zero() { 0..0 } else { 0..k };
    let refused = b.place.rows != k || (c.place.rows, c.place.cols) != (m, n) || !all_finite(&[alpha, beta]);
    assert_eq!(is_refused(&result), refused, "{result:?}");
    if refused {
        return;
    }
    let inputs = [
        ("a", Operand::Matrix(a.read().submatrix(0..m, read.clone()).unwrap())),
        ("b", Operand::Matrix(b.read().submatrix(read, 0..n).unwrap())),
        ("c", Operand::Matrix(c.read())),
    ];
    check_report(&result, &inputs, &[("c", Operand::Matrix(got.read()))], &[]);
    assert_eq!(is_reported(&result), !all_finite(&dense_c.data), "matmul: {result:?}");

    if m * n * k > 3000 {
        return;
    }
    for i in 0..m {
        for j in 0..n {
            let got = dense_c.data[i * n + j];
            let old = if beta.is_zero() { T::zero() } else { old[i * n + j] };
            let row: Vec<T> = (0..k).map(|l| dense_a.data[i * k + l]).collect();
            let col: Vec<T> = (0..k).map(|l| dense_b.data[l * n + j]).collect();
            let unread = alpha.is_zero();
            if !old.is_finite() || !unread && !(all_finite(&row) && all_finite(&col)) {
                assert!(!got.is_finite() || m * n * k == 0, "matmul: something was swallowed at {i}, {j}");
                continue;
            }
            if (alpha, beta) != (T::one(), T::zero()) {
                continue; // no bound is documented
            }
            let want = reference::dot(&row, &col);
            let magnitudes = [&row, &col].map(|x| x.iter().map(|x| x.abs()).collect::<Vec<_>>());
            let sum = reference::dot(&magnitudes[0], &magnitudes[1]);
            let block = if T::FRACTION_BITS < 30 { 512 } else { 256 };
            let terms = k.min(block + k.div_ceil(block)) as f64;
            let error = Wide::new(terms * unit_roundoff::<T>()) * sum + Wide::new(k as f64) * smallest::<T>();
            assert_near(&format!("matmul of {row:?} and {col:?}"), got, want, error);
        }
    }
}

fn backward<T: Float>(a: &Matrix<T>, b: &Matrix<T>, dc: &Matrix<T>, da: &Matrix<T>, db: &Matrix<T>) {
    let f =
        |[x, y]: [&mut [T]; 2]| matmul_backward(a.read(), b.read(), dc.read(), da.place.write(x), db.place.write(y));
    let Outcome { written: [x, y], result } = everywhere("matmul_backward", [&da.data, &db.data], f);
    let shape = |x: &Matrix<T>| (x.place.rows, x.place.cols);
    let fits = shape(b).0 == shape(a).1
        && shape(dc) == (shape(a).0, shape(b).1)
        && shape(da) == shape(a)
        && shape(db) == shape(b);
    assert_eq!(is_refused(&result), !fits, "{result:?}");
    if !fits {
        return;
    }
    let (da, db) = (Matrix { place: da.place, data: x }, Matrix { place: db.place, data: y });
    let inputs = [a, b, dc].map(|x| Operand::Matrix(x.read()));
    let [in_a, in_b, in_dc] = inputs;
    let outputs = [("da", Operand::Matrix(da.read())), ("db", Operand::Matrix(db.read()))];
    check_report(&result, &[("a", in_a), ("b", in_b), ("dc", in_dc)], &outputs, &[]);
    let (mut want_da, mut want_db) = (da.to_dense(), db.to_dense());
    let finite = all_finite(&want_da.data) && all_finite(&want_db.data);
    assert_eq!(is_reported(&result), !finite, "matmul_backward: {result:?}");
    // The same bits as the two products.
    let got = [want_da.data.clone(), want_db.data.clone()];
    let _ = matmul(dc.read(), b.read().t(), want_da.place.write(&mut want_da.data));
    let _ = matmul(a.read().t(), dc.read(), want_db.place.write(&mut want_db.data));
    assert_same("da", &got[0], &want_da.data);
    assert_same("db", &got[1], &want_db.data);
}

fuzz_target!(|data: &[u8]| {
    let u = &mut Unstructured::new(data);
    let _ = if u.arbitrary().unwrap_or(false) { run::<f64>(u) } else { run::<f32>(u) };
});
