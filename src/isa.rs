//! [`Isa`]: the instruction sets, which of them this CPU has, and which one runs. Add one here and a file in `simd/`.

use core::fmt;

use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::simd::{Avx2, Avx512, Baseline, Simd};

/// An instruction set that the kernels are compiled for. The results are the same bits on all of them.
///
/// The best that the CPU has is used. The environment variable `NANPROOF_ISA` (read once, at the first call, with
/// feature `std`) forces another: `baseline`, `avx2` or `avx512`. A name that is unknown, or an instruction set that
/// the CPU does not have, makes every call return an error.
///
/// ```
/// use nanproof::Isa;
///
/// assert!(Isa::available().contains(&Isa::Baseline));
/// let sums: Vec<f32> = Isa::available().iter().map(|isa| isa.run(|| nanproof::sum(&[0.1_f32; 1000]))).collect::<Result<_, _>>()?;
/// assert!(sums.iter().all(|s| s.to_bits() == sums[0].to_bits()));
/// # Ok::<(), nanproof::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// What the build target guarantees: SSE2 on x86-64, NEON on aarch64.
    Baseline,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512 with the extensions BW, CD, DQ and VL.
    Avx512,
}

impl Isa {
    /// The instruction sets of this CPU, the best one last.
    ///
    /// ```
    /// assert_eq!(nanproof::Isa::available()[0], nanproof::Isa::Baseline);
    /// ```
    #[must_use]
    pub fn available() -> &'static [Self] {
        #[cfg(target_arch = "x86_64")]
        {
            if Avx512::detect().is_some() {
                return &[Self::Baseline, Self::Avx2, Self::Avx512];
            }
            if Avx2::detect().is_some() {
                return &[Self::Baseline, Self::Avx2];
            }
        }
        &[Self::Baseline]
    }

    /// The instruction set that calls from this thread run on: the one of the innermost [`run`](Self::run), else the
    /// one that `NANPROOF_ISA` names, else the best of the CPU.
    ///
    /// # Errors
    /// [`Error::UnknownIsa`] or [`Error::Isa`] if `NANPROOF_ISA` names none, or one that the CPU does not have.
    ///
    /// ```
    /// assert!(nanproof::Isa::available().contains(&nanproof::Isa::active()?));
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    pub fn active() -> Result<Self> {
        #[cfg(feature = "std")]
        {
            FORCED.get().map_or_else(configured, Ok)
        }
        #[cfg(not(feature = "std"))]
        {
            Ok(best())
        }
    }

    /// Runs `f` with every call that this thread makes in it on this instruction set.
    ///
    /// # Errors
    /// Those of `f`; [`Error::Isa`], with `f` not run, if the CPU does not have the instruction set.
    ///
    /// ```
    /// use nanproof::Isa;
    ///
    /// assert_eq!(Isa::Baseline.run(Isa::active)?, Isa::Baseline);
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    #[cfg(feature = "std")]
    pub fn run<R>(self, f: impl FnOnce() -> Result<R>) -> Result<R> {
        struct Restore(Option<Isa>);
        impl Drop for Restore {
            fn drop(&mut self) {
                FORCED.set(self.0);
            }
        }
        let isa = self.check()?;
        let _restore = Restore(FORCED.replace(Some(isa)));
        f()
    }

    /// Whether the tiles of matrix products are two blocks wide, so that a half of one does for few columns.
    pub(crate) fn has_half_tiles(self) -> bool {
        self == Self::Avx512
    }

    #[cfg(feature = "std")]
    fn check(self) -> Result<Self> {
        if Self::available().contains(&self) { Ok(self) } else { Err(Error::Isa(self)) }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Baseline => "baseline",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        })
    }
}

impl core::str::FromStr for Isa {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "baseline" => Ok(Self::Baseline),
            "avx2" => Ok(Self::Avx2),
            "avx512" => Ok(Self::Avx512),
            _ => Err(Error::UnknownIsa(name.into())),
        }
    }
}

fn best() -> Isa {
    Isa::available().last().copied().unwrap_or(Isa::Baseline)
}

#[cfg(feature = "std")]
std::thread_local! {
    static FORCED: core::cell::Cell<Option<Isa>> = const { core::cell::Cell::new(None) };
}

/// What `NANPROOF_ISA` asks for.
#[cfg(feature = "std")]
fn configured() -> Result<Isa> {
    static CONFIGURED: std::sync::OnceLock<Result<Isa>> = std::sync::OnceLock::new();
    CONFIGURED
        .get_or_init(|| match std::env::var_os("NANPROOF_ISA") {
            None => Ok(best()),
            Some(name) => name.to_string_lossy().parse::<Isa>()?.check(),
        })
        .clone()
}

/// Runs a kernel on an instruction set. A function of its own: the one place where each kernel is compiled, whether one
/// thread calls it or many.
#[inline(never)]
pub(crate) fn run_on<K: Kernel>(isa: Isa, kernel: K) -> K::Output
where
    Baseline: Simd<K::Elem>,
    Avx2: Simd<K::Elem>,
    Avx512: Simd<K::Elem>,
{
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => {
            if let Some(simd) = Avx512::detect() {
                return simd.vectorize(kernel);
            }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => {
            if let Some(simd) = Avx2::detect() {
                return simd.vectorize(kernel);
            }
        }
        _ => {}
    }
    Baseline.vectorize(kernel)
}
