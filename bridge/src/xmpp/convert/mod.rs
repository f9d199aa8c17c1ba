//! Between stanzas and the seam's types: pure functions.

pub(super) mod from_matrix;
pub(super) mod from_stanza;
