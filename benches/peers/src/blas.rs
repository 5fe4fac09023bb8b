//! BLAS libraries, opened where they are installed.

use std::env;
use std::ffi::{c_char, c_double, c_float, c_int};

use anyhow::{Context, Result};
use libloading::Library as Handle;

use crate::matmul::Shape;

/// Where a library may be found, and how it is told the number of threads.
struct Entry {
    name: &'static str,
    /// The environment variable that names another file.
    variable: &'static str,
    files: &'static [&'static str],
    threads: Threads,
}

#[derive(Clone, Copy)]
enum Threads {
    /// A function of an `int`.
    Int(&'static [u8]),
    /// A function of a 64-bit integer.
    Long(&'static [u8]),
    /// The environment of OpenMP, which is set before anything is opened.
    Environment,
}

/// MKL is last: it makes its symbols global, and they would take the place of those of a library opened later.
const ENTRIES: [Entry; 4] = [
    Entry {
        name: "OpenBLAS",
        variable: "NANPROOF_PEERS_OPENBLAS",
        files: &["libopenblas.so.0", "libopenblas.so", "libopenblas.dylib"],
        threads: Threads::Int(b"openblas_set_num_threads\0"),
    },
    Entry {
        name: "BLIS",
        variable: "NANPROOF_PEERS_BLIS",
        files: &["libblis.so.4", "libblis.so", "libblis.dylib"],
        threads: Threads::Long(b"bli_thread_set_num_threads\0"),
    },
    Entry {
        name: "oneDNN",
        variable: "NANPROOF_PEERS_ONEDNN",
        files: &["libdnnl.so.3", "libdnnl.so.2", "libdnnl.so", "libdnnl.dylib"],
        threads: Threads::Environment,
    },
    Entry {
        name: "MKL",
        variable: "NANPROOF_PEERS_MKL",
        files: &["libmkl_rt.so.3", "libmkl_rt.so.2", "libmkl_rt.so"],
        threads: Threads::Int(b"MKL_Set_Num_Threads\0"),
    },
];

/// The libraries that were found.
pub struct Libraries(Vec<Library>);

impl Libraries {
    /// Opens what there is, and says on standard error what there is not.
    pub fn open(threads: usize) -> Self {
        let open = |entry: &Entry| {
            let library = Library::open(entry, threads);
            library.inspect_err(|error| eprintln!("skipped: {} ({}): {error:#}", entry.name, entry.variable)).ok()
        };
        Self(ENTRIES.iter().filter_map(open).collect())
    }

    pub fn iter(&self) -> impl Iterator<Item = &Library> {
        self.0.iter()
    }
}

const ROW_MAJOR: c_int = 101;
const NO_TRANSPOSE: c_int = 111;
const TRANSPOSE: c_int = 112;

type CblasGemm<T> = unsafe extern "C" fn(
    c_int, // layout
    c_int, // is A transposed?
    c_int, // is B transposed?
    c_int, // m
    c_int, // n
    c_int, // k
    T,     // alpha
    *const T,
    c_int, // distance of the rows of A
    *const T,
    c_int, // distance of the rows of B
    T,     // beta
    *mut T,
    c_int, // distance of the rows of C
);

type CblasGemv<T> = unsafe extern "C" fn(
    c_int, // layout
    c_int, // is the matrix transposed?
    c_int, // rows
    c_int, // columns
    T,     // alpha
    *const T,
    c_int, // distance of its rows
    *const T,
    c_int, // distance of the elements of the vector
    T,     // beta
    *mut T,
    c_int, // distance of the elements of the result
);

type DnnlSgemm = unsafe extern "C" fn(
    c_char, // is A transposed?
    c_char, // is B transposed?
    i64,    // m
    i64,    // n
    i64,    // k
    c_float,
    *const c_float,
    i64, // distance of the rows of A
    *const c_float,
    i64, // distance of the rows of B
    c_float,
    *mut c_float,
    i64, // distance of the rows of C
) -> c_int;

/// The functions of a type.
#[derive(Clone, Copy)]
struct Cblas<T> {
    gemm: CblasGemm<T>,
    gemv: CblasGemv<T>,
}

/// An open library.
pub struct Library {
    pub name: &'static str,
    f32: Option<Cblas<c_float>>,
    f64: Option<Cblas<c_double>>,
    dnnl: Option<DnnlSgemm>,
    /// Keeps the functions loaded.
    _handle: Handle,
}

impl Library {
    fn open(entry: &Entry, threads: usize) -> Result<Self> {
        let handle = open_file(entry)?;
        set_threads(&handle, entry.threads, threads)?;
        // SAFETY: the types are those of the interfaces; the handle is kept beside the functions.
        let library = unsafe {
            Self {
                name: entry.name,
                f32: cblas(&handle, b"cblas_sgemm\0", b"cblas_sgemv\0"),
                f64: cblas(&handle, b"cblas_dgemm\0", b"cblas_dgemv\0"),
                dnnl: function(&handle, b"dnnl_sgemm\0"),
                _handle: handle,
            }
        };
        Ok(library)
    }

    /// The product in `f32`.
    pub fn product_f32(&self) -> Option<impl Fn(Shape, &[f32], &[f32], &mut [f32]) + '_> {
        let (cblas, dnnl) = (self.f32, self.dnnl);
        if cblas.is_none() && dnnl.is_none() {
            return None;
        }
        Some(move |shape: Shape, a: &[f32], b: &[f32], c: &mut [f32]| match (cblas, dnnl) {
            (Some(cblas), _) => cblas.multiply(1.0, 0.0, shape, a, b, c),
            (None, Some(dnnl)) => multiply_dnnl(dnnl, shape, a, b, c),
            (None, None) => {}
        })
    }

    /// The product in `f64`, which oneDNN does not have.
    pub fn product_f64(&self) -> Option<impl Fn(Shape, &[f64], &[f64], &mut [f64]) + '_> {
        let cblas = self.f64?;
        Some(move |shape: Shape, a: &[f64], b: &[f64], c: &mut [f64]| cblas.multiply(1.0, 0.0, shape, a, b, c))
    }
}

impl<T: Copy> Cblas<T> {
    /// `C = A B`: a product with a single row by the matrix-vector product, as a user of BLAS would.
    fn multiply(self, one: T, zero: T, shape: Shape, a: &[T], b: &[T], c: &mut [T]) {
        let Shape { m, k, n, a_transposed, b_transposed, .. } = shape;
        assert!(a.len() == m * k && b.len() == k * n && c.len() == m * n);
        let [m, k, n] = [m, k, n].map(|side| c_int::try_from(side).expect("a side fits an int"));
        let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
        // SAFETY: the strides stay within the slices, whose lengths are those of the shapes.
        unsafe {
            if m == 1 {
                let (transpose, rows, cols) = if b_transposed { (NO_TRANSPOSE, n, k) } else { (TRANSPOSE, k, n) };
                (self.gemv)(ROW_MAJOR, transpose, rows, cols, one, b, cols, a, 1, zero, c, 1);
            } else {
                let (a_transpose, a_stride) = if a_transposed { (TRANSPOSE, m) } else { (NO_TRANSPOSE, k) };
                let (b_transpose, b_stride) = if b_transposed { (TRANSPOSE, k) } else { (NO_TRANSPOSE, n) };
                (self.gemm)(ROW_MAJOR, a_transpose, b_transpose, m, n, k, one, a, a_stride, b, b_stride, zero, c, n);
            }
        }
    }
}

fn multiply_dnnl(dnnl: DnnlSgemm, shape: Shape, a: &[f32], b: &[f32], c: &mut [f32]) {
    let Shape { m, k, n, a_transposed, b_transposed, .. } = shape;
    assert!(a.len() == m * k && b.len() == k * n && c.len() == m * n);
    let [m, k, n] = [m, k, n].map(|side| i64::try_from(side).expect("a side fits 64 bits"));
    let letter = |transposed| if transposed { b'T' as c_char } else { b'N' as c_char };
    let (a_stride, b_stride) = (if a_transposed { m } else { k }, if b_transposed { k } else { n });
    let (a, b, c, ta, tb) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr(), letter(a_transposed), letter(b_transposed));
    // SAFETY: the strides stay within the slices, whose lengths are those of the shapes.
    let status = unsafe { dnnl(ta, tb, m, n, k, 1.0, a, a_stride, b, b_stride, 0.0, c, n) };
    assert!(status == 0, "dnnl_sgemm failed with status {status}");
}

/// Opens the file of the environment variable, or else the first that is found.
fn open_file(entry: &Entry) -> Result<Handle> {
    // SAFETY: a BLAS does nothing but set itself up. Its symbols stay its own (`RTLD_LOCAL`).
    let open = |file: &str| unsafe { open_local(file) };
    if let Ok(file) = env::var(entry.variable) {
        return open(&file).with_context(|| format!("cannot open {file}"));
    }
    let opened = entry.files.iter().find_map(|file| open(file).ok());
    opened.with_context(|| format!("none of {} was found", entry.files.join(", ")))
}

/// All symbols are bound at once, to the library's own: a library opened later cannot take their place.
#[cfg(unix)]
unsafe fn open_local(file: &str) -> Result<Handle, libloading::Error> {
    use libloading::os::unix;
    // SAFETY: as the caller's.
    unsafe { unix::Library::open(Some(file), unix::RTLD_NOW | unix::RTLD_LOCAL) }.map(Handle::from)
}

#[cfg(not(unix))]
unsafe fn open_local(file: &str) -> Result<Handle, libloading::Error> {
    // SAFETY: as the caller's.
    unsafe { Handle::new(file) }
}

fn set_threads(handle: &Handle, how: Threads, threads: usize) -> Result<()> {
    let missing = "it cannot be told the number of threads";
    // SAFETY: the types are those of the interfaces.
    unsafe {
        match how {
            Threads::Int(name) => {
                let set: unsafe extern "C" fn(c_int) = function(handle, name).context(missing)?;
                set(c_int::try_from(threads)?);
            }
            Threads::Long(name) => {
                let set: unsafe extern "C" fn(i64) = function(handle, name).context(missing)?;
                set(i64::try_from(threads)?);
            }
            Threads::Environment => {}
        }
    }
    Ok(())
}

/// # Safety
/// The functions must have this type.
unsafe fn cblas<T>(handle: &Handle, gemm: &[u8], gemv: &[u8]) -> Option<Cblas<T>> {
    // SAFETY: as the caller's.
    unsafe { Some(Cblas { gemm: function(handle, gemm)?, gemv: function(handle, gemv)? }) }
}

/// # Safety
/// The function must have this type, and must not outlive the handle.
unsafe fn function<F: Copy>(handle: &Handle, name: &[u8]) -> Option<F> {
    // SAFETY: as the caller's.
    unsafe { handle.get::<F>(name).ok().map(|symbol| *symbol) }
}
