//! What the machine can do at best: fused multiply-adds in registers, and passes over memory.

use std::hint::black_box;

use rayon::prelude::*;

/// Independent chains: at least the latency times the units of any CPU of today, and they fit 16 registers.
const CHAINS: usize = 12;

/// Steps of each chain in one run of a peak's loop: some 10 microseconds.
const STEPS: usize = 4096;

/// A loop of fused multiply-adds of one CPU.
#[derive(Clone, Copy)]
pub struct Peak {
    run: fn(),
    /// Floating-point operations of one run on one thread.
    operations: f64,
}

impl Peak {
    const fn new(run: fn(), lanes: usize) -> Self {
        Self { run, operations: (2 * lanes * CHAINS * STEPS) as f64 }
    }

    pub fn f32() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                // SAFETY: the CPU has the feature.
                return Self::new(|| unsafe { x86::avx512_f32() }, 16);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                // SAFETY: the CPU has the features.
                return Self::new(|| unsafe { x86::avx2_f32() }, 8);
            }
        }
        #[cfg(target_arch = "aarch64")]
        return Self::new(neon::f32, 4);
        #[cfg(not(target_arch = "aarch64"))]
        Self::new(portable::f32, portable::F32_LANES)
    }

    pub fn f64() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                // SAFETY: the CPU has the feature.
                return Self::new(|| unsafe { x86::avx512_f64() }, 8);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                // SAFETY: the CPU has the features.
                return Self::new(|| unsafe { x86::avx2_f64() }, 4);
            }
        }
        #[cfg(target_arch = "aarch64")]
        return Self::new(neon::f64, 2);
        #[cfg(not(target_arch = "aarch64"))]
        Self::new(portable::f64, portable::F64_LANES)
    }

    /// Floating-point operations of [`Self::run`].
    pub fn operations(self, threads: usize) -> f64 {
        // A thread makes more runs, so that what it takes to wake it does not count.
        self.operations * (threads * self.runs(threads)) as f64
    }

    /// The loop on every thread of the current pool at once.
    pub fn run(self, threads: usize) {
        let runs = || (0..self.runs(threads)).for_each(|_| (self.run)());
        if threads == 1 {
            runs();
        } else {
            rayon::broadcast(|_| runs());
        }
    }

    fn runs(self, threads: usize) -> usize {
        if threads == 1 { 1 } else { 80 }
    }
}

/// The loop over a vector type; the body of every peak.
macro_rules! chains {
    ($splat:expr, $fma:expr) => {{
        let (factor, addend) = ($splat(black_box(0.5)), $splat(black_box(0.25)));
        let mut sums = [$splat(black_box(0.0)); CHAINS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = $fma(*sum, factor, addend);
            }
        }
        black_box(sums);
    }};
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::{CHAINS, STEPS};

    #[target_feature(enable = "avx2,fma")]
    pub fn avx2_f32() {
        chains!(_mm256_set1_ps, _mm256_fmadd_ps);
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn avx2_f64() {
        chains!(_mm256_set1_pd, _mm256_fmadd_pd);
    }

    #[target_feature(enable = "avx512f")]
    pub fn avx512_f32() {
        chains!(_mm512_set1_ps, _mm512_fmadd_ps);
    }

    #[target_feature(enable = "avx512f")]
    pub fn avx512_f64() {
        chains!(_mm512_set1_pd, _mm512_fmadd_pd);
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::*;
    use std::hint::black_box;

    use super::{CHAINS, STEPS};

    pub fn f32() {
        // SAFETY: NEON belongs to every aarch64 CPU.
        unsafe { chains!(vdupq_n_f32, |sum, factor, addend| vfmaq_f32(addend, sum, factor)) }
    }

    pub fn f64() {
        // SAFETY: NEON belongs to every aarch64 CPU.
        unsafe { chains!(vdupq_n_f64, |sum, factor, addend| vfmaq_f64(addend, sum, factor)) }
    }
}

/// Multiplications and additions apart, in arrays of the size of a register of the least CPU.
#[cfg(not(target_arch = "aarch64"))]
mod portable {
    use std::array;
    use std::hint::black_box;

    use super::{CHAINS, STEPS};

    pub const F32_LANES: usize = 4;
    pub const F64_LANES: usize = 2;

    pub fn f32() {
        chains!(|x: f32| [x; F32_LANES], |sum: [f32; F32_LANES],
                                          factor: [f32; F32_LANES],
                                          addend: [f32; F32_LANES]| {
            array::from_fn(|i| sum[i] * factor[i] + addend[i])
        });
    }

    pub fn f64() {
        chains!(|x: f64| [x; F64_LANES], |sum: [f64; F64_LANES],
                                          factor: [f64; F64_LANES],
                                          addend: [f64; F64_LANES]| {
            array::from_fn(|i| sum[i] * factor[i] + addend[i])
        });
    }
}

/// Passes over memory of one instruction set.
#[derive(Clone, Copy)]
pub struct Passes {
    /// Reads an array; the result only keeps the reading from being dropped.
    pub read: fn(&[f32]) -> f32,
    /// Reads an array and writes another.
    pub copy: fn(&[f32], &mut [f32]),
    /// Reads an array and writes it again.
    pub scale: fn(&mut [f32], f32),
    /// Writes the quotients of two arrays.
    pub divide: fn(&[f32], &[f32], &mut [f32]),
}

impl Passes {
    /// The widest that the CPU has.
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return avx512::PASSES;
            }
            if is_x86_feature_detected!("avx") {
                return avx::PASSES;
            }
        }
        plain::PASSES
    }

    /// [`Self::read`] on all threads of the current pool.
    pub fn read_on_all(self, x: &[f32]) {
        let threads = rayon::current_num_threads();
        if threads == 1 {
            black_box((self.read)(black_box(x)));
        } else {
            x.par_chunks(x.len().div_ceil(threads)).for_each(|x| {
                black_box((self.read)(black_box(x)));
            });
        }
    }
}

/// Places of an array that are read in turn: a core that reads at one place alone waits for memory.
#[cfg(target_arch = "x86_64")]
const STREAMS: usize = 4;

/// Registers that are read at each place: all together hide the latency of an addition, and there are 16.
#[cfg(target_arch = "x86_64")]
const REGISTERS: usize = 2;

/// The passes of an instruction set, by its intrinsics: left to the compiler they would be of half the width.
#[cfg(target_arch = "x86_64")]
macro_rules! passes {
    ($module:ident, $feature:literal, $lanes:literal, $load:ident, $store:ident, $add:ident, $mul:ident, $div:ident,
     $splat:ident) => {
        mod $module {
            use std::arch::x86_64::*;
            use std::hint::black_box;

            use super::{Passes, REGISTERS, STREAMS, plain};

            const BLOCK: usize = $lanes * REGISTERS;

            // SAFETY: `Passes::best` chooses these where the CPU has the feature.
            pub const PASSES: Passes = Passes {
                read: |x| unsafe { read(x) },
                copy: |x, y| unsafe { copy(x, y) },
                scale: |x, factor| unsafe { scale(x, factor) },
                divide: |a, b, q| unsafe { divide(a, b, q) },
            };

            #[target_feature(enable = $feature)]
            fn read(x: &[f32]) -> f32 {
                let quarter = x.len() / STREAMS / BLOCK * BLOCK;
                let mut sums = [$splat(0.0); STREAMS * REGISTERS];
                for block in (0..quarter).step_by(BLOCK) {
                    for (stream, sums) in sums.as_chunks_mut::<REGISTERS>().0.iter_mut().enumerate() {
                        let block = &x[stream * quarter + block..][..BLOCK];
                        for (sum, x) in sums.iter_mut().zip(block.as_chunks::<$lanes>().0) {
                            // SAFETY: the chunk is as long as the register.
                            *sum = $add(*sum, unsafe { $load(x.as_ptr()) });
                        }
                    }
                }
                black_box(sums);
                plain::read(&x[STREAMS * quarter..])
            }

            #[target_feature(enable = $feature)]
            fn copy(x: &[f32], y: &mut [f32]) {
                let ((blocks, tail), (to, to_tail)) = (x.as_chunks::<$lanes>(), y.as_chunks_mut::<$lanes>());
                for (x, y) in blocks.iter().zip(to) {
                    // SAFETY: the chunks are as long as the register.
                    unsafe { $store(y.as_mut_ptr(), $load(x.as_ptr())) };
                }
                plain::copy(tail, to_tail);
            }

            #[target_feature(enable = $feature)]
            fn scale(x: &mut [f32], factor: f32) {
                let factors = $splat(factor);
                let (blocks, tail) = x.as_chunks_mut::<$lanes>();
                for x in blocks {
                    // SAFETY: the chunk is as long as the register.
                    unsafe { $store(x.as_mut_ptr(), $mul($load(x.as_ptr()), factors)) };
                }
                plain::scale(tail, factor);
            }

            #[target_feature(enable = $feature)]
            fn divide(a: &[f32], b: &[f32], q: &mut [f32]) {
                let ((a, a_tail), (b, b_tail)) = (a.as_chunks::<$lanes>(), b.as_chunks::<$lanes>());
                let (q, q_tail) = q.as_chunks_mut::<$lanes>();
                for ((a, b), q) in a.iter().zip(b).zip(q) {
                    // SAFETY: the chunks are as long as the register.
                    unsafe { $store(q.as_mut_ptr(), $div($load(a.as_ptr()), $load(b.as_ptr()))) };
                }
                plain::divide(a_tail, b_tail, q_tail);
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
passes!(avx, "avx", 8, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_add_ps, _mm256_mul_ps, _mm256_div_ps, _mm256_set1_ps);
#[cfg(target_arch = "x86_64")]
passes!(
    avx512,
    "avx512f",
    16,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_add_ps,
    _mm512_mul_ps,
    _mm512_div_ps,
    _mm512_set1_ps
);

/// The passes as the compiler makes them, and the tails of the others.
mod plain {
    use super::Passes;

    pub const PASSES: Passes = Passes { read, copy, scale, divide };

    pub fn read(x: &[f32]) -> f32 {
        let mut sums = [0.0; 32];
        let (blocks, tail) = x.as_chunks::<32>();
        for block in blocks {
            for (sum, x) in sums.iter_mut().zip(block) {
                *sum += x;
            }
        }
        sums.iter().chain(tail).sum()
    }

    pub fn copy(x: &[f32], y: &mut [f32]) {
        y.copy_from_slice(x);
    }

    pub fn scale(x: &mut [f32], factor: f32) {
        x.iter_mut().for_each(|x| *x *= factor);
    }

    pub fn divide(a: &[f32], b: &[f32], q: &mut [f32]) {
        for ((q, a), b) in q.iter_mut().zip(a).zip(b) {
            *q = a / b;
        }
    }
}
