//! Matrix products.

use std::cell::RefCell;

use anyhow::Result;

use crate::Options;
use crate::blas::Libraries;
use crate::data::{Aligned, uniform};
use crate::limits::Passes;
use crate::measure::Contender;
use crate::products::{Element, Product, products};
use crate::report::{Case, LIMIT, NANPROOF, Report};

/// A product of `m x k` by `k x n`.
#[derive(Clone, Copy)]
pub struct Shape {
    pub m: usize,
    pub k: usize,
    pub n: usize,
    /// A is stored as its transpose, row by row.
    pub a_transposed: bool,
    /// B is stored as its transpose, row by row.
    pub b_transposed: bool,
    /// So many products of their own.
    pub batch: usize,
}

const fn shape(m: usize, k: usize, n: usize) -> Shape {
    Shape { m, k, n, a_transposed: false, b_transposed: false, batch: 1 }
}

const fn cube(side: usize) -> Shape {
    shape(side, side, side)
}

impl Shape {
    const fn at(self) -> Self {
        Self { a_transposed: true, ..self }
    }

    const fn bt(self) -> Self {
        Self { b_transposed: true, ..self }
    }

    const fn batch(self, batch: usize) -> Self {
        Self { batch, ..self }
    }

    /// Multiplications and additions.
    fn operations(self) -> f64 {
        2.0 * (self.batch * self.m * self.k * self.n) as f64
    }

    /// Calls `multiply` for each product of the batch.
    pub fn each<'a, T>(
        self,
        a: &'a [T],
        b: &'a [T],
        c: &mut [T],
        mut multiply: impl FnMut(&'a [T], &'a [T], &mut [T]),
    ) {
        let Self { m, k, n, .. } = self;
        let operands = a.chunks_exact(m * k).zip(b.chunks_exact(k * n));
        for ((a, b), c) in operands.zip(c.chunks_exact_mut(m * n)) {
            multiply(a, b, c);
        }
    }

    fn name(self, element: &str) -> String {
        let Self { m, k, n, a_transposed, b_transposed, batch } = self;
        let batch = if batch == 1 { String::new() } else { format!(" batch {batch}") };
        let transposed = match (a_transposed, b_transposed) {
            (false, false) => "",
            (true, false) => " At B",
            (false, true) => " A Bt",
            (true, true) => " At Bt",
        };
        format!("{element} {m}x{k}x{n}{transposed}{batch}")
    }
}

const F32: [Shape; 24] = [
    cube(16),
    cube(32),
    cube(64),
    cube(128),
    cube(256),
    cube(512),
    cube(1024),
    cube(2048),
    shape(1, 4096, 4096),
    shape(1, 4096, 4096).bt(),
    shape(8, 1024, 1024),
    shape(64, 768, 3072),
    shape(512, 64, 512),
    shape(1024, 1024, 64),
    shape(3000, 7, 5),
    shape(37, 53, 41),
    shape(127, 129, 131),
    cube(256).at(),
    cube(512).at(),
    shape(64, 768, 3072).at(),
    cube(256).bt(),
    cube(512).bt(),
    shape(64, 768, 3072).bt(),
    shape(128, 64, 128).batch(64),
];

const F64: [Shape; 3] = [cube(64), cube(256), cube(1024)];

/// More operations than a quick run makes in one call.
const QUICK_LIMIT: f64 = 4e9;

/// Measures all cases; the number of wrong results.
pub fn run(options: &Options) -> Result<usize> {
    let libraries = Libraries::open(options.threads());
    let mut report = Report::new(options.csv, options.threads(), options.effort());
    let mut failures = 0;
    for shape in F32 {
        failures += measure::<f32>(shape, options, &libraries, &mut report)?;
    }
    for shape in F64 {
        failures += measure::<f64>(shape, options, &libraries, &mut report)?;
    }
    report.finish();
    Ok(failures)
}

fn measure<T: Element>(shape: Shape, options: &Options, libraries: &Libraries, report: &mut Report) -> Result<usize> {
    let name = shape.name(T::NAME);
    if !options.wants(&name) || (options.quick && shape.operations() > QUICK_LIMIT) {
        return Ok(0);
    }
    let a: Aligned<T> = uniform(shape.batch * shape.m * shape.k, 1);
    let b: Aligned<T> = uniform(shape.batch * shape.k * shape.n, 2);
    let products = products(shape, &a, &b, options.threads(), libraries)?;
    let (products, failures) = without_wrong(products, shape, &name);
    let c = RefCell::new(Aligned::zeros(shape.batch * shape.m * shape.n));

    // A product with a single row reads each element of B once: what matters is how fast memory is read.
    let bytes = size_of_val::<[T]>(&b) as f64;
    let (work, unit, limit) = if shape.m == 1 {
        (bytes, "GB/s", read(&b, bytes))
    } else {
        (shape.operations(), "GFLOP/s", fused::<T>(options.threads()))
    };
    let mut contenders: Vec<Contender<'_>> = products
        .into_iter()
        .map(|mut product| {
            Contender::new(product.peer, work, {
                let c = &c;
                move || (product.call)(&mut c.borrow_mut())
            })
        })
        .collect();
    contenders.push(limit);
    report.measure(Case { name, work, unit, contenders });
    Ok(failures)
}

/// The reading of this operand: of other data it would take the caches from whoever has the next turn.
fn read<T: Element>(b: &[T], bytes: f64) -> Contender<'_> {
    let (b, passes) = (bytemuck::cast_slice(b), Passes::best());
    Contender::new(LIMIT, bytes, move || passes.read_on_all(b))
}

/// Fused multiply-adds in registers.
fn fused<T: Element>(threads: usize) -> Contender<'static> {
    let peak = T::peak();
    Contender::new(LIMIT, peak.operations(threads), move || peak.run(threads))
}

/// The products that give the same as ours, and how many do not.
fn without_wrong<'a, T: Element>(
    products: Vec<Product<'a, T>>,
    shape: Shape,
    case: &str,
) -> (Vec<Product<'a, T>>, usize) {
    let len = shape.batch * shape.m * shape.n;
    // The operands are between -1 and 1: so this is some times what the longest chain of rounding errors can make.
    let tolerance = 2.0 * shape.k as f64 * T::EPSILON;
    let mut expected = Vec::new();
    let mut right = Vec::new();
    let mut failures = 0;
    for mut product in products {
        let mut c: Aligned<T> = Aligned::new(len, T::nan);
        (product.call)(&mut c);
        if product.peer == NANPROOF {
            expected = c.to_vec();
        }
        let same = |(&c, &expected): (&T, &T)| (c.into() - expected.into()).abs() <= tolerance;
        match c.iter().zip(&expected).position(|pair| !same(pair)) {
            None => right.push(product),
            Some(i) => {
                eprintln!("ERROR: {case}: {} gives {} for {} at {i}; left out", product.peer, c[i], expected[i]);
                failures += 1;
            }
        }
    }
    (right, failures)
}
