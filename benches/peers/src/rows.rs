//! Operations on the rows of a matrix, in `f32` on one thread.

use std::cell::RefCell;
use std::hint::black_box;

use anyhow::{Result, ensure};
use nanproof::{CrossEntropy, LayerNorm, MatMut, MatRef, RmsNorm};
use rten_simd::SimdOp;
use rten_vecmath::{LogSoftmax, MaxNum, Normalize, NormalizeOptions, Softmax, Sum, SumExpSub, SumSquare, SumSquareSub};

use crate::Options;
use crate::data::{Aligned, uniform};
use crate::limits::Passes;
use crate::measure::Contender;
use crate::report::{Case, LIMIT, NANPROOF, Report};

/// An operation from a matrix, or two that follow each other, to one of the same shape, or to its first column.
type Operation<'a> = Box<dyn Fn(Shape, &[f32], &mut [f32]) + 'a>;

#[derive(Clone, Copy)]
struct Shape {
    rows: usize,
    cols: usize,
}

impl Shape {
    fn view(self, x: &[f32]) -> MatRef<'_, f32> {
        MatRef::new(x, self.rows, self.cols).expect("as many elements as it says")
    }

    fn view_mut(self, x: &mut [f32]) -> MatMut<'_, f32> {
        MatMut::new(x, self.rows, self.cols).expect("as many elements as it says")
    }

    /// Two matrices that follow each other.
    fn split(self, x: &[f32]) -> (&[f32], &[f32]) {
        x.split_at(self.rows * self.cols)
    }

    /// A peer's function of a row, applied to all.
    fn each_row(self, x: &[f32], y: &mut [f32], f: impl Fn(&mut [f32])) {
        for (x, y) in x.chunks_exact(self.cols).zip(y.chunks_exact_mut(self.cols)) {
            y.copy_from_slice(x);
            f(y);
        }
    }

    /// A peer's function of the rows of two matrices, which replaces the second.
    fn each_pair(self, x: &[f32], y: &mut [f32], f: impl Fn(&[f32], &mut [f32])) {
        let (a, b) = self.split(x);
        let rows = a.chunks_exact(self.cols).zip(b.chunks_exact(self.cols));
        for ((a, b), y) in rows.zip(y.chunks_exact_mut(self.cols)) {
            y.copy_from_slice(b);
            f(a, y);
        }
    }

    /// A peer's number of a row, for all.
    fn each_number(self, x: &[f32], y: &mut [f32], f: impl Fn(&[f32]) -> f32) {
        x.chunks_exact(self.cols).zip(y).for_each(|(x, y)| *y = f(x));
    }
}

/// A job on rows: of how many matrices, how many bytes an element it must move, and who does it.
struct Job<'a> {
    name: &'static str,
    operands: usize,
    bytes: usize,
    shapes: &'static [(usize, usize)],
    peers: Vec<(&'static str, Operation<'a>)>,
}

/// Rows short, long, and the vocabularies of language models.
const SHAPES: &[(usize, usize)] = &[(4096, 64), (4096, 128), (1024, 1024), (64, 32_768), (8, 131_072), (1, 50_257)];

/// The widths of language models.
const NORM_SHAPES: &[(usize, usize)] = &[(4096, 768), (512, 4096)];

/// Measures all cases; the number of wrong results.
pub fn run(options: &Options) -> Result<usize> {
    ensure!(options.threads == 1, "rows measures one thread");
    let mut report = Report::new(options.csv, options.threads(), options.effort());
    let mut failures = 0;
    for job in jobs() {
        for &(rows, cols) in job.shapes {
            let name = format!("{} {rows}x{cols}", job.name);
            if options.wants(&name) {
                failures += measure(&mut report, name, &job, Shape { rows, cols });
            }
        }
    }
    report.finish();
    Ok(failures)
}

fn jobs<'a>() -> Vec<Job<'a>> {
    let one = &SHAPES[2..3];
    vec![
        Job { name: "softmax", operands: 1, bytes: 8, shapes: SHAPES, peers: softmaxes() },
        Job { name: "log_softmax", operands: 1, bytes: 8, shapes: SHAPES, peers: log_softmaxes() },
        Job { name: "logsumexp", operands: 1, bytes: 4, shapes: one, peers: logsumexps() },
        Job { name: "softmax_backward", operands: 2, bytes: 12, shapes: SHAPES, peers: softmax_gradients() },
        Job { name: "log_softmax_backward", operands: 2, bytes: 12, shapes: one, peers: log_softmax_gradients() },
        Job {
            name: "cross_entropy and gradient",
            operands: 1,
            bytes: 8,
            shapes: &[(512, 32_768)],
            peers: cross_entropies(),
        },
        Job { name: "layer_norm", operands: 1, bytes: 8, shapes: NORM_SHAPES, peers: layer_norms() },
        Job { name: "rms_norm", operands: 1, bytes: 8, shapes: NORM_SHAPES, peers: rms_norms() },
    ]
}

fn measure(report: &mut Report, name: String, job: &Job<'_>, shape: Shape) -> usize {
    let (rows, cols) = (shape.rows, shape.cols);
    let work = (job.bytes * rows * cols) as f64;
    let x = uniform::<f32>(job.operands * rows * cols, 3);
    let y = RefCell::new(Aligned::zeros(rows * cols));
    let mut expected = vec![0.0; rows * cols];
    job.peers[0].1(shape, &x, &mut expected);
    // A gradient has a sum of products that cancel, which a plain loop in `f32` does not know better.
    let largest = expected.iter().fold(0.0_f32, |largest, y| largest.max(y.abs()));
    let least = if job.operands == 2 { largest / 10.0 } else { 1e-3 };
    let (mut failures, mut contenders) = (0, Vec::new());
    for (peer, operation) in &job.peers {
        let mut result = vec![0.0; rows * cols];
        operation(shape, &x, &mut result);
        let is_right = |(x, y): (&f32, &f32)| (x - y).abs() <= 1e-3 * y.abs().max(least);
        if let Some(i) = result.iter().zip(&expected).position(|pair| !is_right(pair)) {
            eprintln!("ERROR: {name}: {peer} gives {} for {} at {i}; left out", result[i], expected[i]);
            failures += 1;
            continue;
        }
        let (x, y) = (&x, &y);
        contenders.push(Contender::new(*peer, work, move || {
            operation(shape, black_box(x), &mut y.borrow_mut());
        }));
    }
    let Passes { read, copy, .. } = Passes::best();
    contenders.push(Contender::new(LIMIT, work, || {
        let x = black_box(&x);
        let (first, rest) = shape.split(x);
        black_box(read(rest));
        if job.bytes == 4 {
            black_box(read(first));
        } else {
            copy(first, &mut y.borrow_mut());
        }
    }));
    report.measure(Case { name, work, unit: "GB/s", contenders });
    failures
}

fn softmaxes<'a>() -> Vec<(&'static str, Operation<'a>)> {
    vec![
        (
            NANPROOF,
            Box::new(|shape, x, y| {
                nanproof::softmax(shape.view(x), shape.view_mut(y)).expect("finite");
            }),
        ),
        (
            "rten-vecmath",
            Box::new(|shape, x, y| {
                shape.each_row(x, y, |y| {
                    Softmax::new_mut(y).dispatch();
                })
            }),
        ),
        ("naive", Box::new(|shape, x, y| shape.each_row(x, y, naive_softmax))),
    ]
}

fn naive_softmax(x: &mut [f32]) {
    let max = x.iter().fold(f32::NEG_INFINITY, |max, &x| max.max(x));
    x.iter_mut().for_each(|x| *x = (*x - max).exp());
    let sum: f32 = x.iter().sum();
    x.iter_mut().for_each(|x| *x /= sum);
}

fn log_softmaxes<'a>() -> Vec<(&'static str, Operation<'a>)> {
    vec![
        (
            NANPROOF,
            Box::new(|shape, x, y| {
                nanproof::log_softmax(shape.view(x), shape.view_mut(y)).expect("finite");
            }),
        ),
        (
            "rten-vecmath",
            Box::new(|shape, x, y| {
                shape.each_row(x, y, |y| {
                    LogSoftmax::new_mut(y).dispatch();
                })
            }),
        ),
        (
            "naive",
            Box::new(|shape, x, y| {
                shape.each_row(x, y, |y| {
                    let log = naive_logsumexp(y);
                    y.iter_mut().for_each(|y| *y -= log);
                });
            }),
        ),
    ]
}

fn naive_logsumexp(x: &[f32]) -> f32 {
    let max = x.iter().fold(f32::NEG_INFINITY, |max, &x| max.max(x));
    max + x.iter().map(|&x| (x - max).exp()).sum::<f32>().ln()
}

fn logsumexps<'a>() -> Vec<(&'static str, Operation<'a>)> {
    let by_rten = |x: &[f32]| {
        let max = MaxNum::new(x).dispatch();
        max + SumExpSub::new(x, max).dispatch().ln()
    };
    vec![
        (NANPROOF, Box::new(|shape, x, y| nanproof::logsumexp(shape.view(x), &mut y[..shape.rows]).expect("finite"))),
        ("rten-vecmath", Box::new(move |shape, x, y| shape.each_number(x, y, by_rten))),
        ("naive", Box::new(|shape, x, y| shape.each_number(x, y, naive_logsumexp))),
    ]
}

/// The gradient of softmax with any numbers in the place of the probabilities.
fn softmax_gradients<'a>() -> Vec<(&'static str, Operation<'a>)> {
    vec![
        (
            NANPROOF,
            Box::new(|shape, x, y| {
                let (p, dp) = shape.split(x);
                nanproof::softmax_backward(shape.view(p), shape.view(dp), shape.view_mut(y)).expect("finite");
            }),
        ),
        (
            "naive",
            Box::new(|shape, x, y| {
                shape.each_pair(x, y, |p, y| {
                    let sum: f32 = p.iter().zip(&*y).map(|(p, dp)| p * dp).sum();
                    y.iter_mut().zip(p).for_each(|(y, p)| *y = p * (*y - sum));
                });
            }),
        ),
    ]
}

/// The gradient of log-softmax with any numbers in the place of the result.
fn log_softmax_gradients<'a>() -> Vec<(&'static str, Operation<'a>)> {
    vec![
        (
            NANPROOF,
            Box::new(|shape, x, y| {
                let (log_p, dy) = shape.split(x);
                nanproof::log_softmax_backward(shape.view(log_p), shape.view(dy), shape.view_mut(y)).expect("finite");
            }),
        ),
        (
            "naive",
            Box::new(|shape, x, y| {
                shape.each_pair(x, y, |log_p, y| {
                    let sum: f32 = y.iter().sum();
                    y.iter_mut().zip(log_p).for_each(|(y, log_p)| *y -= log_p.exp() * sum);
                });
            }),
        ),
    ]
}

/// The class of each row is its number, as far as there are classes.
fn class(row: usize, cols: usize) -> usize {
    row % cols
}

fn cross_entropies<'a>() -> Vec<(&'static str, Operation<'a>)> {
    vec![
        (
            NANPROOF,
            Box::new(|shape, x, y| {
                let classes: Vec<u32> = (0..shape.rows).map(|row| class(row, shape.cols) as u32).collect();
                let (logits, gradient) = (shape.view(x), shape.view_mut(y));
                nanproof::cross_entropy_with_gradient(CrossEntropy::default(), logits, &classes, gradient)
                    .expect("finite");
            }),
        ),
        (
            "rten-vecmath softmax",
            Box::new(|shape, x, y| {
                by_softmax(shape, x, y, |y| {
                    Softmax::new_mut(y).dispatch();
                })
            }),
        ),
        ("naive", Box::new(|shape, x, y| by_softmax(shape, x, y, naive_softmax))),
    ]
}

/// The mean loss and its gradient, the way that a softmax alone allows.
fn by_softmax(shape: Shape, x: &[f32], y: &mut [f32], softmax: impl Fn(&mut [f32])) {
    shape.each_row(x, y, softmax);
    let scale = 1.0 / shape.rows as f32;
    let mut loss = 0.0;
    for (row, p) in y.chunks_exact_mut(shape.cols).enumerate() {
        let target = class(row, shape.cols);
        loss -= p[target].ln();
        p[target] -= 1.0;
        p.iter_mut().for_each(|p| *p *= scale);
    }
    black_box(loss * scale);
}

const EPS: f32 = 1e-5;

fn layer_norms<'a>() -> Vec<(&'static str, Operation<'a>)> {
    let by_rten = |y: &mut [f32]| {
        let mean = Sum::new(y).dispatch() / y.len() as f32;
        let variance = SumSquareSub::new(y, mean).dispatch() / y.len() as f32;
        let options = NormalizeOptions {
            pre_scale_bias: mean,
            scale: 1.0 / (variance + EPS).sqrt(),
            ..NormalizeOptions::default()
        };
        Normalize::new_mut(y, options).dispatch();
    };
    let naively = |y: &mut [f32]| {
        let mean = y.iter().sum::<f32>() / y.len() as f32;
        let variance = y.iter().map(|y| (y - mean).powi(2)).sum::<f32>() / y.len() as f32;
        let scale = 1.0 / (variance + EPS).sqrt();
        y.iter_mut().for_each(|y| *y = (*y - mean) * scale);
    };
    vec![
        (
            NANPROOF,
            Box::new(|shape, x, y| {
                let options = LayerNorm { eps: EPS };
                nanproof::layer_norm(options, shape.view(x), None, None, shape.view_mut(y)).expect("finite");
            }),
        ),
        ("rten-vecmath", Box::new(move |shape, x, y| shape.each_row(x, y, by_rten))),
        ("naive", Box::new(move |shape, x, y| shape.each_row(x, y, naively))),
    ]
}

fn rms_norms<'a>() -> Vec<(&'static str, Operation<'a>)> {
    let by_rten = |y: &mut [f32]| {
        let mean = SumSquare::new(y).dispatch() / y.len() as f32;
        let options = NormalizeOptions { scale: 1.0 / (mean + EPS).sqrt(), ..NormalizeOptions::default() };
        Normalize::new_mut(y, options).dispatch();
    };
    let naively = |y: &mut [f32]| {
        let mean = y.iter().map(|y| y * y).sum::<f32>() / y.len() as f32;
        let scale = 1.0 / (mean + EPS).sqrt();
        y.iter_mut().for_each(|y| *y *= scale);
    };
    vec![
        (
            NANPROOF,
            Box::new(|shape, x, y| {
                let options = RmsNorm { eps: EPS };
                nanproof::rms_norm(options, shape.view(x), None, shape.view_mut(y)).expect("finite");
            }),
        ),
        ("rten-vecmath", Box::new(move |shape, x, y| shape.each_row(x, y, by_rten))),
        ("naive", Box::new(move |shape, x, y| shape.each_row(x, y, naively))),
    ]
}
