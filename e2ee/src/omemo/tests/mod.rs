//! Tests of the engine from the inside. `people` is what most of them speak about.

mod co_recipient;
mod codecs;
mod conversations;
mod identities;
mod people;
mod primitives;
mod refusals;
mod restored;
mod simultaneous;
mod skipped;
mod stored;
mod upkeep;
mod vectors;
mod worlds;
