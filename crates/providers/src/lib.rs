//! providers
pub mod enforce;
