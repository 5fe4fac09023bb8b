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
    Int(&'static str),
    /// A function of a 64-bit integer.
    Long(&'static str),
    /// The environment of OpenMP, which is set before anything is opened.
    Environment,
}

/// MKL is last: it makes its symbols global, and they would take the place of those of a library opened later.
const ENTRIES: [Entry; 4] = [
    Entry {
        name: "OpenBLAS",
        variable: "NANPROOF_PEERS_OPENBLAS",
        files: &["libopenblas.so.0", "libopenblas.so", "libopenblas.dylib"],
        threads: Threads::Int("openblas_set_num_threads"),
    },
    Entry {
        name: "BLIS",
        variable: "NANPROOF_PEERS_BLIS",
        files: &["libblis.so.4", "libblis.so", "libblis.dylib"],
        threads: Threads::Long("bli_thread_set_num_threads"),
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
        threads: Threads::Int("MKL_Set_Num_Threads"),
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

type CblasGemmBatch<T> = unsafe extern "C" fn(
    c_int, // layout
    c_int, // is A transposed?
    c_int, // is B transposed?
    c_int, // m
    c_int, // n
    c_int, // k
    T,     // alpha
    *const T,
    c_int, // distance of the rows of A
    c_int, // distance of its matrices
    *const T,
    c_int, // distance of the rows of B
    c_int, // distance of its matrices
    T,     // beta
    *mut T,
    c_int, // distance of the rows of C
    c_int, // distance of its matrices
    c_int, // number of matrices
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
    /// Not all have it.
    gemm_batch: Option<CblasGemmBatch<T>>,
}

type CblasDot = unsafe extern "C" fn(c_int, *const c_float, c_int, *const c_float, c_int) -> c_float;
type CblasNrm2 = unsafe extern "C" fn(c_int, *const c_float, c_int) -> c_float;
type CblasScal = unsafe extern "C" fn(c_int, c_float, *mut c_float, c_int);

/// Writes the product, or all products of a batch, of this shape.
pub type Multiply<T> = Box<dyn Fn(Shape, &[T], &[T], &mut [T])>;

/// The functions of vectors, in `f32`.
#[derive(Clone, Copy)]
pub struct Vectors {
    dot: CblasDot,
    nrm2: CblasNrm2,
    scal: CblasScal,
}

impl Vectors {
    /// The sum of squares.
    pub fn sum_of_squares(self, x: &[f32]) -> f32 {
        // SAFETY: the length is the slice's.
        unsafe { (self.dot)(int(x.len()), x.as_ptr(), 1, x.as_ptr(), 1) }
    }

    pub fn norm(self, x: &[f32]) -> f32 {
        // SAFETY: the length is the slice's.
        unsafe { (self.nrm2)(int(x.len()), x.as_ptr(), 1) }
    }

    pub fn scale(self, x: &mut [f32], factor: f32) {
        // SAFETY: the length is the slice's.
        unsafe { (self.scal)(int(x.len()), factor, x.as_mut_ptr(), 1) }
    }
}

fn int(len: usize) -> c_int {
    c_int::try_from(len).expect("a length fits an int")
}

/// An open library.
pub struct Library {
    pub name: &'static str,
    f32: Option<Cblas<c_float>>,
    f64: Option<Cblas<c_double>>,
    dnnl: Option<DnnlSgemm>,
    pub vectors: Option<Vectors>,
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
                f32: cblas(&handle, "cblas_sgemm", "cblas_sgemv"),
                f64: cblas(&handle, "cblas_dgemm", "cblas_dgemv"),
                dnnl: function(&handle, "dnnl_sgemm"),
                vectors: vectors(&handle),
                _handle: handle,
            }
        };
        Ok(library)
    }

    /// The product in `f32`.
    pub fn product_f32(&self) -> Option<Multiply<f32>> {
        match (self.f32, self.dnnl) {
            (Some(cblas), _) => Some(Box::new(move |shape, a, b, c| cblas.multiply(1.0, 0.0, shape, a, b, c))),
            (None, Some(dnnl)) => Some(Box::new(move |shape, a, b, c| {
                shape.each(a, b, c, |a, b, c| multiply_dnnl(dnnl, shape, a, b, c));
            })),
            (None, None) => None,
        }
    }

    /// The product in `f64`, which oneDNN does not have.
    pub fn product_f64(&self) -> Option<Multiply<f64>> {
        let cblas = self.f64?;
        Some(Box::new(move |shape, a, b, c| cblas.multiply(1.0, 0.0, shape, a, b, c)))
    }
}

/// The distances of the rows of A and B.
fn row_strides(shape: Shape) -> (usize, usize) {
    let Shape { m, k, n, a_transposed, b_transposed, .. } = shape;
    (if a_transposed { m } else { k }, if b_transposed { k } else { n })
}

impl<T: Copy + 'static> Cblas<T> {
    /// `C = A B`: a product with a single row by the matrix-vector product, as a user of BLAS would.
    fn multiply(self, one: T, zero: T, shape: Shape, a: &[T], b: &[T], c: &mut [T]) {
        match self.gemm_batch {
            Some(batched) if shape.batch > 1 => multiply_batch(batched, one, zero, shape, a, b, c),
            _ if shape.m == 1 => shape.each(a, b, c, |a, b, c| self.multiply_vector(one, zero, shape, a, b, c)),
            _ => shape.each(a, b, c, |a, b, c| self.multiply_one(one, zero, shape, a, b, c)),
        }
    }

    fn multiply_one(self, one: T, zero: T, shape: Shape, a: &[T], b: &[T], c: &mut [T]) {
        let Shape { m, k, n, a_transposed, b_transposed, .. } = shape;
        assert!(a.len() == m * k && b.len() == k * n && c.len() == m * n);
        let (transpose_a, transpose_b) = (transpose(a_transposed), transpose(b_transposed));
        let (stride_a, stride_b) = row_strides(shape);
        let [m, k, n, stride_a, stride_b] = [m, k, n, stride_a, stride_b].map(int);
        let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
        // SAFETY: the strides stay within the slices, whose lengths are those of the shapes.
        unsafe {
            (self.gemm)(ROW_MAJOR, transpose_a, transpose_b, m, n, k, one, a, stride_a, b, stride_b, zero, c, n);
        }
    }

    fn multiply_vector(self, one: T, zero: T, shape: Shape, a: &[T], b: &[T], c: &mut [T]) {
        let Shape { k, n, b_transposed, .. } = shape;
        assert!(a.len() == k && b.len() == k * n && c.len() == n);
        let (rows, cols) = if b_transposed { (n, k) } else { (k, n) };
        let [rows, cols] = [rows, cols].map(int);
        let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
        // SAFETY: the strides stay within the slices, whose lengths are those of the shapes.
        unsafe { (self.gemv)(ROW_MAJOR, transpose(!b_transposed), rows, cols, one, b, cols, a, 1, zero, c, 1) };
    }
}

fn transpose(yes: bool) -> c_int {
    if yes { TRANSPOSE } else { NO_TRANSPOSE }
}

fn multiply_batch<T>(gemm: CblasGemmBatch<T>, one: T, zero: T, shape: Shape, a: &[T], b: &[T], c: &mut [T]) {
    let Shape { m, k, n, a_transposed, b_transposed, batch } = shape;
    assert!(a.len() == batch * m * k && b.len() == batch * k * n && c.len() == batch * m * n);
    let (transpose_a, transpose_b) = (transpose(a_transposed), transpose(b_transposed));
    let (stride_a, stride_b) = row_strides(shape);
    let [size_a, size_b, size_c, batch] = [m * k, k * n, m * n, batch].map(int);
    let [m, k, n, stride_a, stride_b] = [m, k, n, stride_a, stride_b].map(int);
    let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
    // SAFETY: the strides stay within the slices, whose lengths are those of the shapes.
    unsafe {
        gemm(
            ROW_MAJOR,
            transpose_a,
            transpose_b,
            m,
            n,
            k,
            one,
            a,
            stride_a,
            size_a,
            b,
            stride_b,
            size_b,
            zero,
            c,
            n,
            size_c,
            batch,
        );
    }
}

fn multiply_dnnl(dnnl: DnnlSgemm, shape: Shape, a: &[f32], b: &[f32], c: &mut [f32]) {
    let Shape { m, k, n, a_transposed, b_transposed, .. } = shape;
    assert!(a.len() == m * k && b.len() == k * n && c.len() == m * n);
    let letter = |transposed| if transposed { b'T' as c_char } else { b'N' as c_char };
    let (transpose_a, transpose_b) = (letter(a_transposed), letter(b_transposed));
    let (stride_a, stride_b) = row_strides(shape);
    let [m, k, n, stride_a, stride_b] = [m, k, n, stride_a, stride_b].map(|len| len as i64);
    let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
    // SAFETY: the strides stay within the slices, whose lengths are those of the shapes.
    let status = unsafe { dnnl(transpose_a, transpose_b, m, n, k, 1.0, a, stride_a, b, stride_b, 0.0, c, n) };
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
unsafe fn cblas<T>(handle: &Handle, gemm: &str, gemv: &str) -> Option<Cblas<T>> {
    // SAFETY: as the caller's.
    unsafe {
        Some(Cblas {
            gemm: function(handle, gemm)?,
            gemv: function(handle, gemv)?,
            gemm_batch: function(handle, &format!("{gemm}_batch_strided")),
        })
    }
}

/// # Safety
/// The functions must have this type.
unsafe fn vectors(handle: &Handle) -> Option<Vectors> {
    // SAFETY: as the caller's.
    unsafe {
        let (dot, nrm2, scal) = ("cblas_sdot", "cblas_snrm2", "cblas_sscal");
        Some(Vectors { dot: function(handle, dot)?, nrm2: function(handle, nrm2)?, scal: function(handle, scal)? })
    }
}

/// The function of this name, or of the name that SciPy's builds of OpenBLAS give it.
///
/// # Safety
/// The function must have this type, and must not outlive the handle.
unsafe fn function<F: Copy>(handle: &Handle, name: &str) -> Option<F> {
    let names = [format!("{name}\0"), format!("scipy_{name}\0")];
    // SAFETY: as the caller's.
    names.iter().find_map(|name| unsafe { handle.get::<F>(name.as_bytes()).ok().map(|symbol| *symbol) })
}
