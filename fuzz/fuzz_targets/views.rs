//! Views with any numbers, `usize::MAX` among them: what is refused, what is at which place, and that every operation
//! takes what was not refused.

#![no_main]

use std::collections::HashSet;

use arbitrary::{Result as Drawn, Unstructured};
use libfuzzer_sys::fuzz_target;
use nanproof::*;
use nanproof_fuzz::elements;

const LEN: usize = 4000;

/// A layout by the definition: element `(i, j)` lies at `start + i * row_stride + j * col_stride`.
#[derive(Clone, Copy, Debug)]
struct Model {
    start: u128,
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl Model {
    fn is_empty(self) -> bool {
        self.rows == 0 || self.cols == 0
    }

    fn at(self, i: usize, j: usize) -> u128 {
        let step = |i: usize, stride: usize| (i as u128).saturating_mul(stride as u128);
        self.start.saturating_add(step(i, self.row_stride)).saturating_add(step(j, self.col_stride))
    }

    fn fits(self, len: usize) -> bool {
        self.is_empty() || self.at(self.rows - 1, self.cols - 1) < len as u128
    }

    fn t(self) -> Self {
        let Self { start, rows, cols, row_stride, col_stride } = self;
        Self { start, rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride }
    }

    fn part(self, rows: &std::ops::Range<usize>, cols: &std::ops::Range<usize>) -> Option<Self> {
        let inside = |range: &std::ops::Range<usize>, len| range.start <= range.end && range.end <= len;
        let part = Self { rows: rows.len(), cols: cols.len(), ..self };
        let start = if part.is_empty() { 0 } else { self.at(rows.start, cols.start) };
        (inside(rows, self.rows) && inside(cols, self.cols)).then_some(Self { start, ..part })
    }

    /// Some cells: the corners and their neighbours, inside and out.
    fn cells(self) -> Vec<(usize, usize)> {
        let near = |len: usize| [0, 1, 2, len / 2, len.wrapping_sub(2), len.wrapping_sub(1), len, usize::MAX];
        near(self.rows).into_iter().flat_map(|i| near(self.cols).map(move |j| (i, j))).collect()
    }

    fn places(self) -> Option<Vec<u128>> {
        let count = self.rows.checked_mul(self.cols).filter(|&count| count <= LEN)?;
        let at = |k: usize| self.at(k / self.cols, k % self.cols);
        Some((0..count).map(at).collect())
    }
}

fn size(u: &mut Unstructured<'_>) -> Drawn<usize> {
    Ok(match u.int_in_range(0..=9)? {
        0 => u.arbitrary()?,
        1 => usize::MAX - u.int_in_range(0..=2)?,
        2 => (usize::MAX / 2).wrapping_add(u.int_in_range(0..=2)?),
        3 => 1 << u.int_in_range(0..=63)?,
        4 => u.int_in_range(0..=100)?,
        _ => u.int_in_range(0..=8)?,
    })
}

/// A place within a length, or any number.
fn bound(u: &mut Unstructured<'_>, len: usize) -> Drawn<usize> {
    if u.ratio(1, 8)? { size(u) } else { u.int_in_range(0..=len) }
}

fn run(u: &mut Unstructured<'_>) -> Drawn<()> {
    let data: Vec<f32> = (0..LEN as u32).map(|i| i as f32).collect();
    let mut views = Vec::new();
    for _ in 0..3 {
        if let Some(view) = view(u, &data)? {
            views.push(view);
        }
    }
    // Without elements a slice of any length takes no memory.
    let units = [(); usize::MAX];
    let [rows, cols, row_stride, col_stride] = [size(u)?, size(u)?, size(u)?, size(u)?];
    if let Ok(x) = MatRef::with_strides(&units, rows, cols, row_stride, col_stride) {
        let _ = x.get(rows.wrapping_sub(1), cols.wrapping_sub(1));
        let _ = x.row(rows.wrapping_sub(1));
        let ranges = [bound(u, rows)?..bound(u, rows)?, bound(u, cols)?..bound(u, cols)?];
        let _ = x.submatrix(ranges[0].clone(), ranges[1].clone()).map(|x| x.t().row(0));
    }
    let _ = MatRef::column_major(&units, rows, cols);
    operations(&views);
    Ok(())
}

/// A view after some steps, each held to the model; `None` if it was refused at the first.
fn view<'a>(u: &mut Unstructured<'_>, data: &'a [f32]) -> Drawn<Option<MatRef<'a, f32>>> {
    let data = &data[..bound(u, LEN)?.min(LEN)];
    let mut buffer = data.to_vec();
    let [rows, cols] = [size(u)?, size(u)?];
    let (mut model, exact, by_columns) = match u.int_in_range(0..=3)? {
        0 => (Model { start: 0, rows, cols, row_stride: cols, col_stride: 1 }, true, false),
        1 => (Model { start: 0, rows, cols, row_stride: 1, col_stride: rows }, true, true),
        _ => (Model { start: 0, rows, cols, row_stride: size(u)?, col_stride: size(u)? }, false, false),
    };
    let Model { row_stride, col_stride, .. } = model;
    let (read, write) = match (exact, by_columns) {
        (true, false) => (MatRef::new(data, rows, cols), MatMut::new(&mut buffer, rows, cols)),
        (true, true) => (MatRef::column_major(data, rows, cols), MatMut::column_major(&mut buffer, rows, cols)),
        _ => (
            MatRef::with_strides(data, rows, cols, row_stride, col_stride),
            MatMut::with_strides(&mut buffer, rows, cols, row_stride, col_stride),
        ),
    };
    let count = (rows as u128) * (cols as u128);
    let fits = if exact { count == data.len() as u128 } else { model.fits(data.len()) };
    assert_eq!(read.is_ok(), fits, "{model:?} of {}: {read:?}", data.len());
    let Ok(mut read) = read else {
        assert!(write.is_err());
        return Ok(None);
    };
    let mut write = write.ok();
    let shared = |model: Model| {
        let places = model.places()?;
        Some(places.iter().collect::<HashSet<_>>().len() < places.len())
    };
    assert!(write.is_none() || shared(model) != Some(true), "{model:?}: two elements in one place");
    assert!(write.is_some() || !exact, "{model:?}");

    for _ in 0..u.int_in_range(0..=4)? {
        if u.arbitrary()? {
            (model, read, write) = (model.t(), read.t(), write.map(MatMut::t));
        } else if u.ratio(2, 3)? {
            let rows = bound(u, model.rows)?..bound(u, model.rows)?;
            let cols = bound(u, model.cols)?..bound(u, model.cols)?;
            let (part, got) = (model.part(&rows, &cols), read.submatrix(rows.clone(), cols.clone()));
            assert_eq!(got.is_ok(), part.is_some(), "{model:?}, {rows:?}, {cols:?}");
            if let (Some(part), Ok(got)) = (part, got) {
                (model, read) = (part, got);
                write = write.map(|x| x.submatrix(rows, cols).expect("as the one that is read"));
            }
        } else if let Some(whole) = &mut write {
            let at = bound(u, model.rows)?;
            match whole.reborrow().split_rows(at) {
                Ok((mut above, below)) => {
                    assert_eq!((above.rows(), below.rows()), (at, model.rows - at));
                    assert_eq!((above.cols(), below.cols()), (model.cols, model.cols));
                    let (x, y) = (above.as_ref(), below.as_ref());
                    for (i, j) in model.cells() {
                        let got = if i < at { x.get(i, j) } else { y.get(i - at, j) };
                        assert_eq!(got, read.get(i, j), "{model:?} at {i}, {j}, split at {at}");
                    }
                    let _ = above.row_mut(0);
                }
                Err(Error::Shape { .. }) => assert!(at > model.rows, "{model:?}, {at}"),
                Err(_) => assert!(
                    model.rows > 1
                        && at > 0
                        && at < model.rows
                        && model.row_stride < model.cols.saturating_mul(model.col_stride)
                ),
            }
        }
        check(model, read, write.as_mut());
    }
    check(model, read, write.as_mut());
    Ok(Some(read))
}

/// The same elements as in the model.
fn check(model: Model, read: MatRef<'_, f32>, mut write: Option<&mut MatMut<'_, f32>>) {
    assert_eq!((read.rows(), read.cols()), (model.rows, model.cols));
    for (i, j) in model.cells() {
        let want = (i < model.rows && j < model.cols).then(|| model.at(i, j) as f32);
        assert_eq!(read.get(i, j), want, "{model:?} at {i}, {j}");
        if let Some(write) = &mut write {
            assert_eq!(write.get_mut(i, j).copied(), want, "{model:?} at {i}, {j}");
        }
        let row = read.row(i).map(<[f32]>::to_vec);
        assert!(row.is_none() || i < model.rows, "{model:?} at {i}");
        if let Some(row) = &row {
            assert_eq!(row.len(), model.cols);
            assert!(j >= row.len() || Some(row[j]) == want, "{model:?} at {i}, {j}");
        } else {
            assert!(i >= model.rows || model.col_stride != 1 && model.cols > 1, "{model:?} has no row {i}");
        }
        if let Some(write) = &mut write {
            assert_eq!(write.row_mut(i).map(|row| row.to_vec()), row, "{model:?} at {i}");
        }
    }
}

/// No operation panics, or takes long where there is nothing to compute.
fn operations(views: &[MatRef<'_, f32>]) {
    let area = |x: &MatRef<'_, f32>| x.rows().saturating_mul(x.cols());
    for &x in views {
        // As many numbers as one call may have here.
        if area(&x) > 2 * LEN {
            continue;
        }
        let zeros = vec![0.0; area(&x)];
        let mut out = zeros.clone();
        let out_len = out.len();
        let y = || MatRef::new(&zeros, x.rows(), x.cols());
        let mut into = |f: &mut dyn FnMut(MatMut<'_, f32>) -> Result<()>| {
            MatMut::new(&mut out, x.rows(), x.cols()).and_then(|out| f(out))
        };
        let done = [
            into(&mut |out| softmax(x, out).map(|_| ())),
            into(&mut |out| log_softmax(x, out).map(|_| ())),
            into(&mut |out| softmax_backward(x, y()?, out)),
            into(&mut |out| log_softmax_backward(x, y()?, out)),
        ];
        assert!(done.iter().all(Result::is_ok), "{} x {} of {out_len}: {done:?}", x.rows(), x.cols());
        if x.rows() <= LEN {
            let mut sums = vec![0.0; x.rows()];
            assert!(logsumexp(x, &mut sums).is_ok());
            assert_eq!(
                cross_entropy(CrossEntropy::default(), x, &vec![0; x.rows()]).is_ok(),
                x.cols() > 0 || x.rows() == 0
            );
            let ignored = CrossEntropy { ignore: Some(0), ..CrossEntropy::default() };
            assert!(into(&mut |out| cross_entropy_backward(ignored, x, &vec![0; x.rows()], 1.0, out)).is_ok());
        }
        for &b in views {
            let work = x.rows().saturating_mul(b.cols()).saturating_mul(x.cols().max(1));
            if work > 200_000 || is_large(b) {
                continue;
            }
            let mut c = vec![0.0; x.rows() * b.cols()];
            let result = MatMut::new(&mut c, x.rows(), b.cols()).and_then(|c| matmul(x, b, c));
            assert_eq!(result.is_ok(), x.cols() == b.rows(), "{result:?}");
            if result.is_ok() && work < 5000 && x.rows() > 0 && b.cols() > 0 {
                let first: f64 =
                    (0..x.cols()).map(|k| f64::from(x.get(0, k).unwrap()) * f64::from(b.get(k, 0).unwrap())).sum();
                assert!((f64::from(c[0]) - first).abs() <= first * 1e-5, "{first}");
            }
        }
        let _ = elements(x);
    }
}

/// Whether a second operand is too large to look at.
fn is_large(b: MatRef<'_, f32>) -> bool {
    b.rows().saturating_mul(b.cols()) > 200_000
}

fuzz_target!(|data: &[u8]| {
    let _ = run(&mut Unstructured::new(data));
});
