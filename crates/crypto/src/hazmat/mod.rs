//! Primitives that are wrong when used wrongly; only the modules beside this one may call them.

pub(crate) mod gf256;
pub(crate) mod hkdf;
#[cfg(test)]
mod shake;
pub(crate) mod xaes;
