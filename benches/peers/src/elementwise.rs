//! Norms, clipping, division and a step of an optimiser, in `f32` on one thread.

use std::cell::RefCell;
use std::hint::black_box;

use anyhow::{Result, ensure};
use nanproof::AdamW;
use rten_simd::SimdOp;
use rten_vecmath::SumSquare;

use crate::Options;
use crate::blas::{Libraries, Vectors};
use crate::data::{Aligned, uniform};
use crate::limits::Passes;
use crate::measure::Contender;
use crate::report::{Case, LIMIT, NANPROOF, Report};

/// What the cases share.
struct Bench<'a> {
    options: &'a Options,
    libraries: &'a Libraries,
    report: Report,
    failures: usize,
}

/// Measures all cases; the number of wrong results.
pub fn run(options: &Options) -> Result<usize> {
    ensure!(options.threads == 1, "elementwise measures one thread");
    let report = Report::new(options.csv, options.threads(), options.effort());
    let mut bench = Bench { options, libraries: &Libraries::open(1), report, failures: 0 };
    bench.norm(100_000);
    bench.clip(1, 100_000);
    bench.clip(1, 10_000_000);
    bench.clip(100, 100_000);
    bench.clip(100, 1_000);
    bench.safe_div(100_000);
    bench.adamw(1_000_000);
    bench.report.finish();
    Ok(bench.failures)
}

impl Bench<'_> {
    fn wants(&self, case: &str) -> bool {
        self.options.wants(case)
    }

    /// Measures what is given, and passes over as many elements as the arrays of the case have together.
    fn measure(&mut self, name: String, bytes: f64, contenders: Vec<Contender<'_>>, elements: usize) {
        let x = RefCell::new(uniform(elements, 8));
        let mut all = contenders;
        all.extend(passes(&x));
        self.report.measure(Case { name, work: bytes, unit: "GB/s", contenders: all });
    }

    /// Whether a peer's result is ours within a tolerance; says so if it is not.
    fn is_right(&mut self, case: &str, peer: &str, result: &[f32], expected: &[f32]) -> bool {
        let same = |(x, y): (&f32, &f32)| (x - y).abs() <= 1e-4 * y.abs().max(1e-3);
        let wrong = result.iter().zip(expected).position(|pair| !same(pair));
        if let Some(i) = wrong {
            eprintln!("ERROR: {case}: {peer} gives {} for {} at {i}; left out", result[i], expected[i]);
            self.failures += 1;
        }
        wrong.is_none()
    }
}

/// Bytes of so many passes over so many elements.
fn bytes(passes: usize, len: usize) -> f64 {
    (passes * len * size_of::<f32>()) as f64
}

/// The limits of passes of one kind; the mixture that a case makes of them is its own limit.
fn passes(x: &RefCell<Aligned<f32>>) -> [Contender<'_>; 3] {
    let Passes { read, copy, scale, .. } = Passes::best();
    let len = x.borrow().len();
    [
        Contender::new(format!("{LIMIT} read"), bytes(1, len), move || {
            black_box(read(black_box(&x.borrow())));
        }),
        Contender::new(format!("{LIMIT} copy"), bytes(1, len), move || {
            let mut x = x.borrow_mut();
            let (from, to) = x.split_at_mut(len / 2);
            copy(black_box(from), to);
        }),
        Contender::new(format!("{LIMIT} scale"), bytes(2, len), move || scale(&mut x.borrow_mut(), black_box(1.0))),
    ]
}

// --- The L2 norm -------------------------------------------------------------------------------------------------------

type Norm<'a> = Box<dyn Fn(&[f32]) -> f32 + 'a>;

fn norms(libraries: &Libraries) -> Vec<(String, Norm<'_>)> {
    let mut norms: Vec<(String, Norm<'_>)> = vec![
        (NANPROOF.into(), Box::new(|x| nanproof::l2_norm(x).expect("the norm is finite"))),
        ("naive".into(), Box::new(|x| x.iter().map(|x| x * x).sum::<f32>().sqrt())),
        ("rten-vecmath".into(), Box::new(|x| SumSquare::new(x).dispatch().sqrt())),
    ];
    for (library, vectors) in vectors(libraries) {
        norms.push((format!("{library} snrm2"), Box::new(move |x| vectors.norm(x))));
        norms.push((format!("{library} sdot"), Box::new(move |x| vectors.sum_of_squares(x).sqrt())));
    }
    norms
}

fn vectors(libraries: &Libraries) -> impl Iterator<Item = (&'static str, Vectors)> {
    libraries.iter().filter_map(|library| Some((library.name, library.vectors?)))
}

impl Bench<'_> {
    /// Reads each element once.
    fn norm(&mut self, len: usize) {
        let name = format!("l2_norm {len}");
        if !self.wants(&name) {
            return;
        }
        let (x, work) = (uniform(len, 1), bytes(1, len));
        let x: &[f32] = &x;
        let norms = norms(self.libraries);
        let expected = norms[0].1(x);
        let mut contenders = Vec::new();
        for (peer, norm) in norms {
            if self.is_right(&name, &peer, &[norm(x)], &[expected]) {
                contenders.push(Contender::new(peer, work, move || {
                    black_box(norm(black_box(x)));
                }));
            }
        }
        let read = Passes::best().read;
        contenders.push(Contender::new(LIMIT, work, move || {
            black_box(read(black_box(x)));
        }));
        self.measure(name, work, contenders, len);
    }
}

// --- Clipping by the norm -----------------------------------------------------------------------------------------------

/// Clips to a norm and returns the norm that the tensors had.
type Clip = Box<dyn Fn(&mut [&mut [f32]], f32) -> f32>;

fn clips(libraries: &Libraries) -> Vec<(String, Clip)> {
    let mut clips: Vec<(String, Clip)> = vec![(NANPROOF.into(), Box::new(clip))];
    for (library, vectors) in vectors(libraries) {
        let by_sdot = move |tensors: &mut [&mut [f32]], max| {
            let squares: f32 = tensors.iter().map(|x| vectors.sum_of_squares(x)).sum();
            scale_to(vectors, tensors, squares.sqrt(), max)
        };
        let by_snrm2 = move |tensors: &mut [&mut [f32]], max| {
            let norm = match tensors {
                [x] => vectors.norm(x),
                _ => tensors.iter().map(|x| vectors.norm(x).powi(2)).sum::<f32>().sqrt(),
            };
            scale_to(vectors, tensors, norm, max)
        };
        clips.push((format!("{library} sdot + sscal"), Box::new(by_sdot)));
        clips.push((format!("{library} snrm2 + sscal"), Box::new(by_snrm2)));
    }
    clips
}

fn clip(tensors: &mut [&mut [f32]], max: f32) -> f32 {
    let clip = match tensors {
        [x] => nanproof::clip_by_norm(x, max),
        _ => nanproof::clip_by_global_norm(tensors, max),
    };
    clip.expect("the norm is finite").norm
}

fn scale_to(vectors: Vectors, tensors: &mut [&mut [f32]], norm: f32, max: f32) -> f32 {
    if norm > max {
        tensors.iter_mut().for_each(|x| vectors.scale(x, max / norm));
    }
    norm
}

/// By this factor the largest norm shrinks with every call, so that every call clips: by more than the rounding errors
/// of any norm.
const SHRINK: f32 = 0.999;

/// A clip that can be called again and again.
struct Clipping<'a> {
    clip: Clip,
    tensors: Vec<&'a mut [f32]>,
    /// The norm at first, by the peer's own reckoning.
    first_norm: f32,
    norm: f32,
}

impl<'a> Clipping<'a> {
    fn new(clip: Clip, memory: &'a mut [Aligned<f32>]) -> Self {
        let mut tensors: Vec<&mut [f32]> = memory.iter_mut().map(|x| &mut **x).collect();
        let norm = clip(&mut tensors, f32::INFINITY);
        Self { clip, tensors, first_norm: norm, norm }
    }

    fn call(&mut self) {
        if self.norm < 0.5 * self.first_norm {
            self.renew();
        }
        self.norm *= SHRINK;
        let norm = (self.clip)(black_box(&mut self.tensors), self.norm);
        assert!(norm > self.norm, "every call must clip");
    }

    /// After some 700 calls: so it does not show in the smallest time.
    #[cold]
    fn renew(&mut self) {
        self.norm *= 2.0;
        self.tensors.iter_mut().for_each(|x| x.iter_mut().for_each(|x| *x *= 2.0));
    }
}

fn tensors(count: usize, len: usize) -> Vec<Aligned<f32>> {
    (1..=count as u64).map(|seed| uniform(len, seed)).collect()
}

impl Bench<'_> {
    /// Reads each element twice and writes it once.
    fn clip(&mut self, count: usize, len: usize) {
        let name =
            if count == 1 { format!("clip_by_norm {len}") } else { format!("clip_by_global_norm {count}x{len}") };
        if !self.wants(&name) {
            return;
        }
        let work = bytes(3, count * len);
        let clips = clips(self.libraries);
        let mut memory: Vec<_> = clips.iter().map(|_| tensors(count, len)).collect();
        let expected: Vec<f32> = memory[0][0].iter().map(|x| SHRINK * x).collect();
        let mut contenders = Vec::new();
        for ((peer, clip), memory) in clips.into_iter().zip(&mut memory) {
            let mut clipping = Clipping::new(clip, memory);
            clipping.call();
            if self.is_right(&name, &peer, clipping.tensors[0], &expected) {
                contenders.push(Contender::new(peer, work, move || clipping.call()));
            }
        }
        let Passes { read, scale, .. } = Passes::best();
        let mut all = uniform(count * len, 1);
        contenders.push(Contender::new(LIMIT, work, move || {
            black_box(read(black_box(&all)));
            scale(&mut all, black_box(1.0));
        }));
        self.measure(name, work, contenders, count * len);
    }
}

// --- Division ----------------------------------------------------------------------------------------------------------

fn naive_safe_div(a: &[f32], b: &[f32], q: &mut [f32]) {
    for ((q, &a), &b) in q.iter_mut().zip(a).zip(b) {
        *q = if b == 0.0 { 0.0 } else { a / b };
    }
}

impl Bench<'_> {
    /// Reads two arrays and writes a third.
    fn safe_div(&mut self, len: usize) {
        let name = format!("safe_div {len}");
        if !self.wants(&name) {
            return;
        }
        let (a, mut b, work) = (uniform(len, 1), uniform(len, 2), bytes(3, len));
        b.iter_mut().step_by(1000).for_each(|b| *b = 0.0);
        let (a, b): (&[f32], &[f32]) = (&a, &b);
        let [ours, theirs, copied, divided] = [(); 4].map(|()| RefCell::new(Aligned::zeros(len)));
        let ours_call = || {
            nanproof::safe_div(black_box(a), black_box(b), &mut ours.borrow_mut()).expect("the quotients are finite");
        };
        let their_call = || naive_safe_div(black_box(a), black_box(b), &mut theirs.borrow_mut());
        ours_call();
        their_call();
        let mut contenders = vec![Contender::new(NANPROOF, work, ours_call)];
        if self.is_right(&name, "naive", &theirs.borrow(), &ours.borrow()) {
            contenders.push(Contender::new("naive", work, their_call));
        }
        let Passes { read, copy, divide, .. } = Passes::best();
        contenders.push(Contender::new(LIMIT, work, || {
            black_box(read(black_box(a)));
            copy(black_box(b), &mut copied.borrow_mut());
        }));
        // Of the unit that divides: no check, no choice.
        let quotients = || divide(black_box(a), black_box(b), &mut divided.borrow_mut());
        contenders.push(Contender::new("limit divide", work, quotients));
        self.measure(name, work, contenders, 3 * len);
    }
}

// --- A step of AdamW ------------------------------------------------------------------------------------------------------

/// The step that is measured: late enough for the moments to count.
const STEP: u32 = 10;

/// What a step changes, and the gradient.
struct Parameters {
    w: Aligned<f32>,
    g: Aligned<f32>,
    m: Aligned<f32>,
    v: Aligned<f32>,
}

impl Parameters {
    fn new(len: usize) -> Self {
        Self { w: uniform(len, 1), g: uniform(len, 2), m: Aligned::zeros(len), v: Aligned::zeros(len) }
    }

    fn step(&mut self, adamw: &AdamW<f32>) {
        let Self { w, g, m, v } = self;
        adamw.step(STEP, w, black_box(g), m, v).expect("the step is finite");
    }

    fn naive_step(&mut self, adamw: &AdamW<f32>) {
        let &AdamW { learning_rate, beta1, beta2, eps, weight_decay } = adamw;
        let (correction1, correction2) = (1.0 - beta1.powi(STEP as i32), 1.0 - beta2.powi(STEP as i32));
        let moments = self.m.iter_mut().zip(&mut *self.v);
        for ((w, (m, v)), &g) in self.w.iter_mut().zip(moments).zip(black_box(&*self.g)) {
            *m = beta1 * *m + (1.0 - beta1) * g;
            *v = beta2 * *v + (1.0 - beta2) * g * g;
            *w -= learning_rate * (weight_decay * *w + *m / correction1 / ((*v / correction2).sqrt() + eps));
        }
    }
}

impl Bench<'_> {
    /// Reads four arrays and writes three of them again.
    fn adamw(&mut self, len: usize) {
        let name = format!("AdamW {len}");
        if !self.wants(&name) {
            return;
        }
        let (adamw, work) = (AdamW::default(), bytes(7, len));
        let [mut ours, mut theirs, mut scaled] = [(); 3].map(|()| Parameters::new(len));
        ours.step(&adamw);
        theirs.naive_step(&adamw);
        let right = self.is_right(&name, "naive", &theirs.w, &ours.w);
        let mut contenders = vec![Contender::new(NANPROOF, work, || ours.step(&adamw))];
        if right {
            contenders.push(Contender::new("naive", work, || theirs.naive_step(&adamw)));
        }
        let Passes { read, scale, .. } = Passes::best();
        contenders.push(Contender::new(LIMIT, work, move || {
            black_box(read(black_box(&scaled.g)));
            for x in [&mut scaled.w, &mut scaled.m, &mut scaled.v] {
                scale(x, black_box(1.0));
            }
        }));
        self.measure(name, work, contenders, 4 * len);
    }
}
