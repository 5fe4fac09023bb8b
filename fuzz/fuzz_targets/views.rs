//! Views of matrices and of stacks against a model that says where each element lies: no panic, what lies outside is
//! refused, and operations leave what lies outside of a view as it was.

#![no_main]

use std::collections::HashSet;
use std::ops::Range;

use arbitrary::{Result as Drawn, Unstructured};
use libfuzzer_sys::fuzz_target;
use nanproof::*;
use nanproof_fuzz::*;

fn run(u: &mut Unstructured<'_>) -> Drawn<()> {
    match u.int_in_range(0..=5)? {
        0 => matrices(u),
        1 => mutable_matrices(u),
        2 => stacks(u),
        3 => mutable_stacks(u),
        4 => operations::<f32>(u),
        _ => operations::<f64>(u),
    }
}

/// Where the elements of a matrix lie, with numbers that cannot overflow.
#[derive(Clone, Copy, Debug)]
struct Model {
    start: u128,
    rows: usize,
    cols: usize,
    strides: [usize; 2],
}

impl Model {
    fn is_empty(self) -> bool {
        self.rows == 0 || self.cols == 0
    }

    fn at(self, i: usize, j: usize) -> Option<usize> {
        if i >= self.rows || j >= self.cols {
            return None;
        }
        let [row, col] = self.strides.map(|stride| stride as u128);
        Some((self.start + i as u128 * row + j as u128 * col) as usize)
    }

    /// The number of elements from the first to the last; `None` if a slice could not have as many, or as many places.
    fn span(self) -> Option<u128> {
        if self.is_empty() {
            return Some(0);
        }
        let area = self.rows as u128 * self.cols as u128;
        let steps = |n: usize, stride: usize| (n - 1) as u128 * stride as u128;
        let last = steps(self.rows, self.strides[0]).saturating_add(steps(self.cols, self.strides[1]));
        (area <= isize::MAX as u128 / 8).then_some(last.saturating_add(1))
    }

    /// Whether one stride is longer than the other's whole line.
    fn is_disjoint(self) -> bool {
        let line = |n: usize, stride: usize| (n - 1) as u128 * stride as u128;
        let steps_over = |outer: usize, inner: usize, n: usize| inner > 0 && outer as u128 > line(n, inner);
        let [row, col] = self.strides;
        match (self.rows, self.cols) {
            (0, _) | (_, 0) | (1, 1) => true,
            (1, _) => col > 0,
            (_, 1) => row > 0,
            (rows, cols) => steps_over(row, col, cols) || steps_over(col, row, rows),
        }
    }

    fn t(self) -> Self {
        let [row, col] = self.strides;
        Self { rows: self.cols, cols: self.rows, strides: [col, row], ..self }
    }

    fn part(self, rows: &Range<usize>, cols: &Range<usize>) -> Option<Self> {
        let fits = |range: &Range<usize>, len| range.start <= range.end && range.end <= len;
        if !fits(rows, self.rows) || !fits(cols, self.cols) {
            return None;
        }
        let part = Self { rows: rows.len(), cols: cols.len(), ..self };
        let start = if part.is_empty() { self.start } else { self.at(rows.start, cols.start)? as u128 };
        Some(Self { start, ..part })
    }

    /// Whether the elements of a row are neighbours.
    fn has_rows(self) -> bool {
        self.strides[1] == 1 || self.cols < 2
    }

    /// The last place of the rows before one is not before the first place of the others.
    fn interleaves(self, at: usize) -> bool {
        if at == 0 || at >= self.rows || self.cols == 0 {
            return false;
        }
        self.at(at - 1, self.cols - 1) >= self.at(at, 0)
    }
}

/// A size or a stride: small, or so large that products of it do not fit.
fn size(u: &mut Unstructured<'_>) -> Drawn<usize> {
    Ok(match u.int_in_range(0..=15)? {
        0..=11 => u.int_in_range(0..=6)?,
        12 | 13 => u.int_in_range(0..=40)?,
        14 => usize::MAX >> u.int_in_range(0..=4_u32)?,
        _ => u.arbitrary()?,
    })
}

fn sizes<const N: usize>(u: &mut Unstructured<'_>) -> Drawn<[usize; N]> {
    let mut sizes = [0; N];
    for each in &mut sizes {
        *each = size(u)?;
    }
    Ok(sizes)
}

/// The numbers of the places.
fn places(len: usize) -> Vec<f64> {
    (0..len).map(|i| i as f64).collect()
}

/// A length, and the layout of a matrix that may have it.
fn drawn_layout(u: &mut Unstructured<'_>) -> Drawn<(usize, Model)> {
    let [rows, cols, row_stride, col_stride] = sizes(u)?;
    let model = Model { start: 0, rows, cols, strides: [row_stride, col_stride] };
    let span = model.span().filter(|&span| span <= 2000).unwrap_or(40) as usize;
    Ok((near(u, span)?, model))
}

/// Mostly a length, now and then one that is near it.
fn near(u: &mut Unstructured<'_>, len: usize) -> Drawn<usize> {
    Ok(match u.int_in_range(0..=3)? {
        0 => len.saturating_sub(1),
        1 => len + 1,
        _ => len,
    })
}

/// Indices inside, at the ends and outside.
fn probes(n: usize) -> impl Iterator<Item = usize> + Clone {
    (0..n.min(7)).chain([n.saturating_sub(1), n, n.saturating_add(1), usize::MAX])
}

fn check_matrix(view: MatRef<'_, f64>, model: Model) {
    assert_eq!([view.rows(), view.cols()], [model.rows, model.cols]);
    assert_eq!([view.row_stride(), view.col_stride()], model.strides);
    for i in probes(model.rows) {
        for j in probes(model.cols) {
            assert_eq!(view.get(i, j), model.at(i, j).map(|at| at as f64), "{i}, {j} of {model:?}");
        }
        let row = (i < model.rows && model.has_rows()).then(|| (0..model.cols).map(|j| model.at(i, j).unwrap() as f64));
        assert_eq!(view.row(i).map(<[_]>::to_vec), row.map(Iterator::collect), "row {i} of {model:?}");
    }
}

/// A range, mostly inside.
fn range(u: &mut Unstructured<'_>, n: usize) -> Drawn<Range<usize>> {
    if u.ratio(1, 8)? {
        return Ok(size(u)?..size(u)?);
    }
    let start = u.int_in_range(0..=n)?;
    Ok(start..u.int_in_range(start..=n)?)
}

fn matrices(u: &mut Unstructured<'_>) -> Drawn<()> {
    let (len, mut model) = drawn_layout(u)?;
    let data = places(len);
    let [rows, cols] = [model.rows, model.cols];
    let dense = rows as u128 * cols as u128 == len as u128;
    let (view, fits) = match u.int_in_range(0..=3)? {
        0 => {
            model.strides = [cols, 1];
            (MatRef::new(&data, rows, cols), dense)
        }
        1 => {
            model.strides = [1, rows];
            (MatRef::column_major(&data, rows, cols), dense)
        }
        _ => {
            let [row, col] = model.strides;
            let fits = model.span().is_some_and(|span| span <= len as u128);
            (MatRef::with_strides(&data, rows, cols, row, col), fits)
        }
    };
    assert_eq!(view.is_ok(), fits, "{len}, {model:?}: {view:?}");
    assert_eq!(is_refused(&view), !fits);
    let Ok(view) = view else { return Ok(()) };
    check_matrix(view, model);
    views_of(u, view, model)
}

/// Transposes and parts, of one another.
fn views_of(u: &mut Unstructured<'_>, mut view: MatRef<'_, f64>, mut model: Model) -> Drawn<()> {
    for _ in 0..u.int_in_range(0..=4)? {
        if u.arbitrary()? {
            (view, model) = (view.t(), model.t());
        } else {
            let (rows, cols) = (range(u, model.rows)?, range(u, model.cols)?);
            let (part, want) = (view.submatrix(rows.clone(), cols.clone()), model.part(&rows, &cols));
            assert_eq!(part.is_ok(), want.is_some(), "{rows:?}, {cols:?} of {model:?}");
            let (Ok(part), Some(want)) = (part, want) else { continue };
            (view, model) = (part, want);
        }
        check_matrix(view, model);
    }
    Ok(())
}

fn mutable_matrices(u: &mut Unstructured<'_>) -> Drawn<()> {
    let (len, mut model) = drawn_layout(u)?;
    let mut data = places(len);
    let [rows, cols] = [model.rows, model.cols];
    let dense = rows as u128 * cols as u128 == len as u128;
    let kind = u.int_in_range(0..=3)?;
    let (view, fits) = match kind {
        0 => {
            model.strides = [cols, 1];
            (MatMut::new(&mut data, rows, cols), dense)
        }
        1 => {
            model.strides = [1, rows];
            (MatMut::column_major(&mut data, rows, cols), dense)
        }
        _ => {
            let [row, col] = model.strides;
            let fits = model.span().is_some_and(|span| span <= len as u128);
            (MatMut::with_strides(&mut data, rows, cols, row, col), fits && model.is_disjoint())
        }
    };
    assert_eq!(view.is_ok(), fits, "{len}, {model:?}: {view:?}");
    assert_eq!(is_refused(&view), !fits);
    let Ok(view) = view else { return Ok(()) };
    let mut written = HashSet::new();
    write_views_of(u, view, model, &mut written, 4)?;
    check_written(&data, &written);
    Ok(())
}

/// What no place holds at first.
const MARK: f64 = -1.0;

fn check_written(data: &[f64], written: &HashSet<usize>) {
    for (i, &x) in data.iter().enumerate() {
        assert_eq!(x, if written.contains(&i) { MARK } else { i as f64 }, "place {i}");
    }
}

/// Transposes, parts and halves of one another, and at last writes all of them.
fn write_views_of(
    u: &mut Unstructured<'_>,
    mut view: MatMut<'_, f64>,
    model: Model,
    written: &mut HashSet<usize>,
    depth: usize,
) -> Drawn<()> {
    check_matrix(view.as_ref(), model);
    match if depth == 0 { 0 } else { u.int_in_range(0..=4)? } {
        0 => write_all(u.arbitrary()?, view, model, written),
        1 => write_views_of(u, view.t(), model.t(), written, depth - 1)?,
        2 | 3 => {
            let (rows, cols) = (range(u, model.rows)?, range(u, model.cols)?);
            let want = model.part(&rows, &cols);
            let part = view.reborrow().submatrix(rows.clone(), cols.clone());
            assert_eq!(part.is_ok(), want.is_some(), "{rows:?}, {cols:?} of {model:?}");
            if let (Ok(part), Some(want)) = (part, want) {
                write_views_of(u, part, want, written, depth - 1)?;
            }
        }
        _ => {
            let at = range(u, model.rows)?.start;
            let fits = at <= model.rows && !model.interleaves(at);
            let halves = view.split_rows(at);
            assert_eq!(halves.is_ok(), fits, "{at} of {model:?}: {halves:?}");
            if let Ok((above, below)) = halves {
                let all = 0..model.cols;
                let [first, second] = [0..at, at..model.rows].map(|rows| model.part(&rows, &all).expect("inside"));
                write_views_of(u, above, first, written, depth - 1)?;
                write_views_of(u, below, second, written, depth - 1)?;
            }
        }
    }
    Ok(())
}

/// Writes every element, each of which has a place of its own.
fn write_all(by_rows: bool, mut view: MatMut<'_, f64>, model: Model, written: &mut HashSet<usize>) {
    for i in probes(model.rows) {
        let row = view.row_mut(i).map(|row| row.len());
        assert_eq!(row, (i < model.rows && model.has_rows()).then_some(model.cols), "row {i} of {model:?}");
        assert!(view.get_mut(i, model.cols).is_none() && view.get_mut(model.rows, i).is_none());
    }
    if model.is_empty() {
        return;
    }
    for i in 0..model.rows {
        if by_rows && let Some(row) = view.row_mut(i) {
            row.fill(MARK);
        }
        for j in 0..model.cols {
            *view.get_mut(i, j).expect("inside") = MARK;
            assert!(written.insert(model.at(i, j).expect("inside")), "{i}, {j} of {model:?} shares a place");
        }
    }
}

/// Matrices of one layout.
#[derive(Clone, Copy, Debug)]
struct StackModel {
    len: usize,
    stride: usize,
    matrix: Model,
}

impl StackModel {
    /// A length, and a stack that may have it.
    fn draw(u: &mut Unstructured<'_>) -> Drawn<(usize, Self)> {
        let ([len, stride], matrix) = (sizes(u)?, drawn_layout(u)?.1);
        let stack = Self { len, stride, matrix };
        let span = stack.span().filter(|&span| span <= 2000).unwrap_or(40) as usize;
        Ok((near(u, span)?, stack))
    }

    fn span(self) -> Option<u128> {
        match if self.len == 0 { 0 } else { self.matrix.span()? } {
            0 => Some(0),
            span => Some(((self.len - 1) as u128 * self.stride as u128).saturating_add(span)),
        }
    }

    /// The same stored one after the other, and how long that is.
    fn dense(self) -> (Option<u128>, Self) {
        let Model { rows, cols, .. } = self.matrix;
        let area = rows as u128 * cols as u128;
        let total = if self.len == 0 { Some(0) } else { area.checked_mul(self.len as u128) };
        let stride = usize::try_from(area).unwrap_or(usize::MAX);
        (total, Self { stride, matrix: Model { strides: [cols, 1], ..self.matrix }, ..self })
    }

    fn is_disjoint(self) -> bool {
        let apart = self.len < 2 || self.matrix.span().is_some_and(|span| span <= self.stride as u128);
        self.matrix.is_disjoint() && apart
    }

    fn get(self, i: usize) -> Option<Model> {
        let start = if self.matrix.is_empty() { 0 } else { i as u128 * self.stride as u128 };
        (i < self.len).then_some(Model { start, ..self.matrix })
    }
}

fn check_stack(stack: BatchRef<'_, f64>, model: StackModel) {
    assert_eq!((stack.len(), stack.is_empty()), (model.len, model.len == 0));
    for i in probes(model.len) {
        let (matrix, want) = (stack.get(i), model.get(i));
        assert_eq!(matrix.is_some(), want.is_some(), "{i} of {model:?}");
        if let (Some(matrix), Some(want)) = (matrix, want) {
            check_matrix(matrix, want);
        }
    }
}

fn stacks(u: &mut Unstructured<'_>) -> Drawn<()> {
    let (len, mut model) = StackModel::draw(u)?;
    let data = places(len);
    let Model { rows, cols, strides: [row, col], .. } = model.matrix;
    let (stack, fits) = match u.int_in_range(0..=4)? {
        0 => {
            let (total, dense) = model.dense();
            let stack = BatchRef::new(&data, model.len, rows, cols);
            model = dense;
            (stack, total == Some(len as u128))
        }
        1 => {
            let Ok(matrix) = MatRef::with_strides(&data, rows, cols, row, col) else { return Ok(()) };
            model.stride = 0;
            (Ok(BatchRef::repeat(matrix, model.len)), true)
        }
        _ => {
            let fits = model.span().is_some_and(|span| span <= len as u128);
            (BatchRef::with_strides(&data, model.len, rows, cols, model.stride, row, col), fits)
        }
    };
    assert_eq!(stack.is_ok(), fits, "{len}, {model:?}: {stack:?}");
    assert_eq!(is_refused(&stack), !fits);
    let Ok(stack) = stack else { return Ok(()) };
    check_stack(stack, model);
    check_stack(stack.t(), StackModel { matrix: model.matrix.t(), ..model });
    let i = probes(model.len).nth(u.choose_index(7)?).unwrap_or_default();
    match (stack.get(i), model.get(i)) {
        (Some(matrix), Some(model)) => views_of(u, matrix, model),
        _ => Ok(()),
    }
}

fn mutable_stacks(u: &mut Unstructured<'_>) -> Drawn<()> {
    let (len, mut model) = StackModel::draw(u)?;
    let mut data = places(len);
    let Model { rows, cols, strides: [row, col], .. } = model.matrix;
    let (stack, fits) = if u.ratio(1, 4)? {
        let (total, dense) = model.dense();
        let stack = BatchMut::new(&mut data, model.len, rows, cols);
        model = dense;
        (stack, total == Some(len as u128))
    } else {
        let fits = model.span().is_some_and(|span| span <= len as u128) && model.is_disjoint();
        (BatchMut::with_strides(&mut data, model.len, rows, cols, model.stride, row, col), fits)
    };
    assert_eq!(stack.is_ok(), fits, "{len}, {model:?}: {stack:?}");
    assert_eq!(is_refused(&stack), !fits);
    let Ok(mut stack) = stack else { return Ok(()) };
    assert_eq!((stack.len(), stack.is_empty()), (model.len, model.len == 0));
    let mut written = HashSet::new();
    for i in (0..model.len.min(9)).chain([model.len, usize::MAX]) {
        let (matrix, want) = (stack.get_mut(i), model.get(i));
        assert_eq!(matrix.is_some(), want.is_some(), "{i} of {model:?}");
        if let (Some(matrix), Some(want)) = (matrix, want) {
            write_views_of(u, matrix, want, &mut written, 2)?;
        }
    }
    check_written(&data, &written);
    Ok(())
}

// --- Operations ------------------------------------------------------------------------------------------------------

/// A matrix of any layout in a slice that is longer than it needs.
#[derive(Clone, Debug)]
struct Placed<T> {
    model: Model,
    data: Vec<T>,
}

impl<T: Float> Placed<T> {
    fn draw(u: &mut Unstructured<'_>, rows: usize, cols: usize, read_only: bool) -> Drawn<Self> {
        let mut strides = [0; 2];
        for stride in &mut strides {
            *stride = u.int_in_range(0..=12)?;
        }
        let mut model = Model { start: u.int_in_range(0..=3)?, rows, cols, strides };
        if !read_only && !model.is_disjoint() {
            // One stride steps over the other's line, by little or by much.
            let inner = strides[1].clamp(1, 4);
            let by_columns = strides[0] % 2 == 0;
            let outer = inner * if by_columns { rows } else { cols } + strides[0] / 2;
            model.strides = if by_columns { [inner, outer] } else { [outer, inner] };
        }
        let len = model.start + model.span().expect("it is small") + u.int_in_range(0..=3)?;
        Ok(Self { model, data: numbers(u, len as usize)? })
    }

    fn read(&self) -> MatRef<'_, T> {
        let Model { start, rows, cols, strides: [row, col] } = self.model;
        MatRef::with_strides(&self.data[start as usize..], rows, cols, row, col).expect("it fits")
    }

    fn write<'a>(&self, data: &'a mut [T]) -> MatMut<'a, T> {
        let Model { start, rows, cols, strides: [row, col] } = self.model;
        MatMut::with_strides(&mut data[start as usize..], rows, cols, row, col).expect("it fits")
    }

    fn to_dense(&self) -> Self {
        let Model { rows, cols, .. } = self.model;
        let model = Model { start: 0, rows, cols, strides: [cols, 1] };
        Self { model, data: elements(self.read()) }
    }
}

/// Inputs of the shape of the result, and the factors of a product that has it.
type Operands<'a, T> = [MatRef<'a, T>; 3];

/// A name, and what an operation makes of its operands.
type Operation<T> = (&'static str, fn(Operands<'_, T>, MatMut<'_, T>) -> Result<usize>);

fn every_operation<T: Float>() -> [Operation<T>; 12] {
    [
        ("softmax", |[x, ..], y| softmax(x, y)),
        ("softmax_in_place", |_, y| softmax_in_place(Softmax::default(), y)),
        ("log_softmax", |[x, ..], y| log_softmax(x, y)),
        ("layer_norm", |[x, ..], y| layer_norm(LayerNorm { eps: T::zero() }, x, None, None, y).map(|()| 0)),
        ("normalize", |[x, ..], y| normalize(T::zero(), x, y).map(|()| 0)),
        ("logsumexp_backward", |[x, ..], y| logsumexp_backward(x, &vec![T::one(); x.rows()], y).map(|()| 0)),
        ("max_rows_backward", |[x, ..], y| max_rows_backward(x, &vec![T::one(); x.rows()], y).map(|()| 0)),
        ("cross_entropy_in_place", |[x, ..], y| {
            cross_entropy_in_place(CrossEntropy::default(), y, &vec![0; x.rows()]).map(|loss| loss.count)
        }),
        ("clip_rows_by_norm", |[x, ..], y| clip_rows_by_norm(y, T::one(), &mut vec![T::zero(); x.rows()])),
        ("clip_unitwise", |[x, ..], y| clip_unitwise(x, y, T::one(), T::zero())),
        ("matmul", |[_, a, b], c| matmul(a, b, c).map(|()| 0)),
        ("matmul_with", |[_, a, b], c| matmul_with(Matmul { alpha: -T::one(), beta: T::one() }, a, b, c).map(|()| 0)),
    ]
}

fn operations<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    if u.ratio(1, 5)? {
        return products_of_stacks::<T>(u);
    }
    let (rows, inner, cols) = (length(u, 20)?, length(u, 20)?, length(u, 40)?);
    let out = Placed::<T>::draw(u, rows, cols, false)?;
    let inputs =
        [Placed::draw(u, rows, cols, true)?, Placed::draw(u, rows, inner, true)?, Placed::draw(u, inner, cols, true)?];
    let (name, f) = *u.choose(&every_operation())?;
    let read = inputs.each_ref().map(Placed::read);
    let outcome = everywhere(name, [&out.data], |[data]| f(read, out.write(data)));
    let Outcome { written: [data], result } = outcome;

    let dense = inputs.each_ref().map(Placed::to_dense);
    let mut want = out.to_dense();
    let mut want_data = want.data.clone();
    let want_result = f(dense.each_ref().map(Placed::read), want.write(&mut want_data));
    want.data = want_data;
    assert_eq!(format!("{result:?}"), format!("{want_result:?}"), "{name}, strided and dense");
    let written = Placed { data, ..out.clone() };
    assert_same(&format!("{name}, strided and dense, {:?}", out.model), &written.to_dense().data, &want.data);
    check_outside(name, &[out.model], [&out.data, &written.data]);
    Ok(())
}

/// What lies outside of the matrices is as it was.
fn check_outside<T: Float>(name: &str, models: &[Model], [before, after]: [&[T]; 2]) {
    let cells = |model: &Model| {
        let model = *model;
        (0..model.rows).flat_map(move |i| (0..model.cols).filter_map(move |j| model.at(i, j)))
    };
    let inside: HashSet<usize> = models.iter().flat_map(cells).collect();
    for (i, (&before, &after)) in before.iter().zip(after).enumerate() {
        assert!(inside.contains(&i) || same(before, after), "{name} wrote outside of {models:?}, at {i}");
    }
}

/// Each product of two stacks is that of its matrices.
fn products_of_stacks<T: Float>(u: &mut Unstructured<'_>) -> Drawn<()> {
    let (len, rows, inner, cols) = (length(u, 4)?, length(u, 9)?, length(u, 9)?, length(u, 9)?);
    let a = Stacked::<T>::draw(u, len, rows, inner, true)?;
    let b = Stacked::<T>::draw(u, len, inner, cols, true)?;
    let c = Stacked::<T>::draw(u, len, rows, cols, false)?;
    let name = "matmul_batched";
    let f = |[data]: [&mut [T]; 1]| matmul_batched(a.read(), b.read(), c.write(data));
    let Outcome { written: [written], result } = everywhere(name, [&c.data], f);
    let mut want = c.data.clone();
    let mut is_ok = true;
    for i in 0..len {
        let mut stack = c.write(&mut want);
        let [a, b] = [&a, &b].map(|stack| stack.read().get(i).expect("inside"));
        is_ok &= matmul(a, b, stack.get_mut(i).expect("inside")).is_ok();
    }
    assert_eq!(is_reported(&result), !is_ok, "{result:?}");
    assert_same(name, &written, &want);
    let models: Vec<Model> = (0..len).filter_map(|i| c.model.get(i)).collect();
    check_outside(name, &models, [&c.data, &written]);
    Ok(())
}

/// A stack of any layout in a slice.
#[derive(Clone, Debug)]
struct Stacked<T> {
    model: StackModel,
    data: Vec<T>,
}

impl<T: Float> Stacked<T> {
    fn draw(u: &mut Unstructured<'_>, len: usize, rows: usize, cols: usize, read_only: bool) -> Drawn<Self> {
        let matrix = Model { start: 0, ..Placed::<T>::draw(u, rows, cols, read_only)?.model };
        let least = if read_only { 0 } else { matrix.span().expect("it is small") as usize };
        let model = StackModel { len, stride: least + u.int_in_range(0..=3)?, matrix };
        let len = model.span().expect("it is small") as usize + u.int_in_range(0..=3)?;
        Ok(Self { model, data: numbers(u, len)? })
    }

    fn read(&self) -> BatchRef<'_, T> {
        let StackModel { len, stride, matrix: Model { rows, cols, strides: [row, col], .. } } = self.model;
        BatchRef::with_strides(&self.data, len, rows, cols, stride, row, col).expect("it fits")
    }

    fn write<'a>(&self, data: &'a mut [T]) -> BatchMut<'a, T> {
        let StackModel { len, stride, matrix: Model { rows, cols, strides: [row, col], .. } } = self.model;
        BatchMut::with_strides(data, len, rows, cols, stride, row, col).expect("it fits")
    }
}

fuzz_target!(|data: &[u8]| {
    let _ = run(&mut Unstructured::new(data));
});
