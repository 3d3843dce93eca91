//! MD5 of many texts side by side.
//!
//! The MD5 of one text is a chain in which each step waits for the one before, and most of a core waits with it.
//! Eight texts in vectors take little longer than one: the formats demand an MD5 of every aggregate and every key, so
//! whoever has several of them at hand gets them for a fraction.

use std::ops::{Add, BitAnd, BitOr, BitXor, Not};

use md5::block_api;
use wide::u32x4;

/// Bytes of an MD5.
pub(crate) const LEN: usize = 16;

const BLOCK: usize = 64;
const LANES: usize = 8;
/// RFC 1321, 3.3.
const START: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// Where the MD5 of a text stands after the text's whole blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chain([u32; 4]);

impl Chain {
    /// Goes through the whole blocks of one text.
    pub(crate) fn of(text: &[u8]) -> Self {
        let mut state = START;
        block_api::compress(&mut state, text.as_chunks::<BLOCK>().0);
        Self(state)
    }

    /// The MD5 of a text that begins with the blocks behind this; `rest` is what follows them.
    pub(crate) fn finish(self, rest: &[u8], text_len: usize) -> [u8; LEN] {
        let mut state = self.0;
        let (blocks, end) = rest.as_chunks::<BLOCK>();
        block_api::compress(&mut state, blocks);
        let mut last = [[0; BLOCK]; 2];
        let blocks = pad(end, text_len, last.as_flattened_mut());
        block_api::compress(&mut state, &last[..blocks]);
        bytes(state)
    }
}

/// How many of a text's bytes are in whole blocks.
pub(crate) const fn whole(len: usize) -> usize {
    len - len % BLOCK
}

/// The MD5 of one text.
pub(crate) fn digest(text: &[u8]) -> [u8; LEN] {
    Chain::of(text).finish(&text[whole(text.len())..], text.len())
}

/// Whether vectors are worth it. Without optimization each of their operations is a call, and one chain after the other,
/// through a crate that is optimized in every build, is a hundred times as quick. The tests below use them all the same.
const VECTORS: bool = cfg!(test) || !cfg!(debug_assertions);

/// [`Chain::of`] each text.
pub(crate) fn chains(texts: &[&[u8]]) -> Vec<Chain> {
    if !VECTORS {
        return texts.iter().map(|text| Chain::of(text)).collect();
    }
    let mut done = vec![Chain(START); texts.len()];
    let mut waiting = texts.iter().map(|text| text.as_chunks::<BLOCK>().0).enumerate();
    let mut waiting = std::iter::from_fn(|| waiting.find(|(_, blocks)| !blocks.is_empty()));
    let mut lanes: [(usize, &[[u8; BLOCK]]); LANES] = [(0, &[]); LANES];
    let mut states = [START; LANES];
    loop {
        for (lane, state) in lanes.iter_mut().zip(&mut states).filter(|(lane, _)| lane.1.is_empty()) {
            if let Some(next) = waiting.next() {
                (*lane, *state) = (next, START);
            }
        }
        let busy = || lanes.iter().filter(|(_, blocks)| !blocks.is_empty());
        let Some(blocks) = busy().map(|(_, blocks)| blocks.len()).min() else { return done };
        if busy().count() == 1 {
            // Nothing waits any more: one chain alone is quicker without vectors.
            for ((text, blocks), state) in lanes.iter_mut().zip(&mut states) {
                if !blocks.is_empty() {
                    block_api::compress(state, blocks);
                    done[*text] = Chain(*state);
                }
            }
            return done;
        }
        // Lanes that are out of work go through another one's blocks, to no effect.
        let some = busy().next().map_or(&[][..], |(_, blocks)| *blocks);
        let these = lanes.map(|(_, blocks)| if blocks.is_empty() { some } else { blocks });
        if lanes[LANES / 2..].iter().all(|(_, blocks)| blocks.is_empty()) {
            run::<1>(&mut states, these, blocks);
        } else {
            run::<2>(&mut states, these, blocks);
        }
        for (lane, state) in lanes.iter_mut().zip(&states).filter(|(lane, _)| !lane.1.is_empty()) {
            lane.1 = &lane.1[blocks..];
            if lane.1.is_empty() {
                done[lane.0] = Chain(*state);
            }
        }
    }
}

/// The MD5s of short texts, such as keys: those of less than a block go side by side.
pub(crate) fn digests<'t>(texts: impl Iterator<Item = &'t [u8]>) -> Vec<[u8; LEN]> {
    let mut all = Vec::with_capacity(texts.size_hint().0);
    let mut lanes = [[[0; BLOCK]; 1]; LANES];
    let mut places = [0; LANES];
    let mut filled = 0;
    let flush = |all: &mut Vec<[u8; LEN]>, lanes: &[[[u8; BLOCK]; 1]; LANES], places: &[usize]| {
        let mut states = [START; LANES];
        run::<2>(&mut states, lanes.each_ref().map(|lane| &lane[..]), 1);
        places.iter().zip(states).for_each(|(place, state)| all[*place] = bytes(state));
    };
    for text in texts {
        if text.len() + LENGTH > BLOCK || !VECTORS {
            all.push(digest(text));
            continue;
        }
        places[filled] = all.len();
        all.push([0; LEN]);
        pad(text, text.len(), &mut lanes[filled][0]);
        filled += 1;
        if filled == LANES {
            flush(&mut all, &lanes, &places);
            filled = 0;
        }
    }
    if filled > 0 {
        flush(&mut all, &lanes, &places[..filled]);
    }
    all
}

/// Bytes that end a text: one bit, and how long it is.
const LENGTH: usize = 9;

/// Fills blocks with the end of a text; says how many it takes.
fn pad(end: &[u8], text_len: usize, blocks: &mut [u8]) -> usize {
    let used = if end.len() + LENGTH <= BLOCK { BLOCK } else { 2 * BLOCK };
    blocks[..end.len()].copy_from_slice(end);
    blocks[end.len()] = 0x80;
    blocks[end.len() + 1..used - 8].fill(0);
    blocks[used - 8..used].copy_from_slice(&(text_len as u64).wrapping_mul(8).to_le_bytes());
    used / BLOCK
}

fn bytes(state: [u32; 4]) -> [u8; LEN] {
    let mut out = [0; LEN];
    for (bytes, word) in out.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    out
}

/// The same word of four texts, or of eight: then the steps of one half fill the gaps of the other.
#[derive(Clone, Copy)]
struct Words<const HALVES: usize>([u32x4; HALVES]);

impl<const HALVES: usize> Words<HALVES> {
    #[inline(always)]
    fn splat(word: u32) -> Self {
        Self([u32x4::splat(word); HALVES])
    }

    #[inline(always)]
    fn of(word: impl Fn(usize) -> u32) -> Self {
        let half = |from| u32x4::new([word(from), word(from + 1), word(from + 2), word(from + 3)]);
        Self(std::array::from_fn(|at| half(4 * at)))
    }

    #[inline(always)]
    fn with(self, other: Self, f: impl Fn(u32x4, u32x4) -> u32x4) -> Self {
        Self(std::array::from_fn(|at| f(self.0[at], other.0[at])))
    }

    #[inline(always)]
    fn rotate<const LEFT: i32, const RIGHT: i32>(self) -> Self {
        Self(self.0.map(|half| (half << LEFT) | (half >> RIGHT)))
    }

    fn lane(self, lane: usize) -> u32 {
        self.0[lane / 4].to_array()[lane % 4]
    }
}

macro_rules! operator {
    ($trait:ident, $method:ident, $op:tt) => {
        impl<const HALVES: usize> $trait for Words<HALVES> {
            type Output = Self;

            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                self.with(other, |a, b| a $op b)
            }
        }
    };
}
operator!(Add, add, +);
operator!(BitAnd, bitand, &);
operator!(BitOr, bitor, |);
operator!(BitXor, bitxor, ^);

impl<const HALVES: usize> Not for Words<HALVES> {
    type Output = Self;

    #[inline(always)]
    fn not(self) -> Self {
        self ^ Self::splat(u32::MAX)
    }
}

/// Takes the states of the first four lanes, or of all, through so many blocks of theirs.
fn run<const HALVES: usize>(states: &mut [[u32; 4]; LANES], lanes: [&[[u8; BLOCK]]; LANES], blocks: usize) {
    let mut state: [Words<HALVES>; 4] = std::array::from_fn(|word| Words::of(|lane| states[lane][word]));
    // Cut to one length, so that it is checked once.
    let lanes = lanes.map(|lane| &lane[..blocks]);
    for at in 0..blocks {
        compress(&mut state, lanes.map(|lane| &lane[at]));
    }
    for (lane, after) in states.iter_mut().take(4 * HALVES).enumerate() {
        *after = state.map(|word| word.lane(lane));
    }
}

/// One block of each lane: RFC 1321, 3.4.
#[inline(always)]
fn compress<const HALVES: usize>(state: &mut [Words<HALVES>; 4], block: [&[u8; BLOCK]; LANES]) {
    let m = words::<HALVES>(block);
    let [mut a, mut b, mut c, mut d] = *state;
    macro_rules! step {
        ($f:ident $a:ident $b:ident $c:ident $d:ident $m:literal $left:literal $i:expr) => {
            let sum = ($a + (m[$m] + Words::splat(SINES[$i]))) + $f($b, $c, $d);
            $a = $b + sum.rotate::<$left, { 32 - $left }>();
        };
    }
    macro_rules! steps {
        ($f:ident $i:literal: $m0:literal $m1:literal $m2:literal $m3:literal, $s0:literal $s1:literal $s2:literal $s3:literal) => {
            step!($f a b c d $m0 $s0 $i);
            step!($f d a b c $m1 $s1 $i + 1);
            step!($f c d a b $m2 $s2 $i + 2);
            step!($f b c d a $m3 $s3 $i + 3);
        };
    }
    steps!(f 0: 0 1 2 3, 7 12 17 22);
    steps!(f 4: 4 5 6 7, 7 12 17 22);
    steps!(f 8: 8 9 10 11, 7 12 17 22);
    steps!(f 12: 12 13 14 15, 7 12 17 22);
    steps!(g 16: 1 6 11 0, 5 9 14 20);
    steps!(g 20: 5 10 15 4, 5 9 14 20);
    steps!(g 24: 9 14 3 8, 5 9 14 20);
    steps!(g 28: 13 2 7 12, 5 9 14 20);
    steps!(h 32: 5 8 11 14, 4 11 16 23);
    steps!(h 36: 1 4 7 10, 4 11 16 23);
    steps!(h 40: 13 0 3 6, 4 11 16 23);
    steps!(h 44: 9 12 15 2, 4 11 16 23);
    steps!(i 48: 0 7 14 5, 6 10 15 21);
    steps!(i 52: 12 3 10 1, 6 10 15 21);
    steps!(i 56: 8 15 6 13, 6 10 15 21);
    steps!(i 60: 4 11 2 9, 6 10 15 21);
    for (word, step) in state.iter_mut().zip([a, b, c, d]) {
        *word = *word + step;
    }
}

/// The words of each block, those of one number together. Read four at a time and turned in vectors: put together one by
/// one they would wait for memory that was just written.
#[inline(always)]
fn words<const HALVES: usize>(block: [&[u8; BLOCK]; LANES]) -> [Words<HALVES>; 16] {
    let mut m = [Words::splat(0); 16];
    for (quarter, m) in m.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let row = |lane: usize| {
            let words = block[lane].as_chunks::<4>().0.as_chunks::<4>().0[quarter];
            u32x4::new(words.map(u32::from_le_bytes))
        };
        let turned = |from| u32x4::transpose(std::array::from_fn(|lane| row(from + lane)));
        let halves: [[u32x4; 4]; HALVES] = std::array::from_fn(|half| turned(4 * half));
        *m = std::array::from_fn(|word| Words(halves.map(|half| half[word])));
    }
    m
}

#[inline(always)]
fn f<const HALVES: usize>(x: Words<HALVES>, y: Words<HALVES>, z: Words<HALVES>) -> Words<HALVES> {
    z ^ (x & (y ^ z))
}

#[inline(always)]
fn g<const HALVES: usize>(x: Words<HALVES>, y: Words<HALVES>, z: Words<HALVES>) -> Words<HALVES> {
    y ^ (z & (x ^ y))
}

#[inline(always)]
fn h<const HALVES: usize>(x: Words<HALVES>, y: Words<HALVES>, z: Words<HALVES>) -> Words<HALVES> {
    x ^ y ^ z
}

#[inline(always)]
fn i<const HALVES: usize>(x: Words<HALVES>, y: Words<HALVES>, z: Words<HALVES>) -> Words<HALVES> {
    y ^ (x | !z)
}

/// 2^32 times the sines of 1 to 64, without their signs.
#[rustfmt::skip]
const SINES: [u32; 64] = [
    0xd76a_a478, 0xe8c7_b756, 0x2420_70db, 0xc1bd_ceee, 0xf57c_0faf, 0x4787_c62a, 0xa830_4613, 0xfd46_9501,
    0x6980_98d8, 0x8b44_f7af, 0xffff_5bb1, 0x895c_d7be, 0x6b90_1122, 0xfd98_7193, 0xa679_438e, 0x49b4_0821,
    0xf61e_2562, 0xc040_b340, 0x265e_5a51, 0xe9b6_c7aa, 0xd62f_105d, 0x0244_1453, 0xd8a1_e681, 0xe7d3_fbc8,
    0x21e1_cde6, 0xc337_07d6, 0xf4d5_0d87, 0x455a_14ed, 0xa9e3_e905, 0xfcef_a3f8, 0x676f_02d9, 0x8d2a_4c8a,
    0xfffa_3942, 0x8771_f681, 0x6d9d_6122, 0xfde5_380c, 0xa4be_ea44, 0x4bde_cfa9, 0xf6bb_4b60, 0xbebf_bc70,
    0x289b_7ec6, 0xeaa1_27fa, 0xd4ef_3085, 0x0488_1d05, 0xd9d4_d039, 0xe6db_99e5, 0x1fa2_7cf8, 0xc4ac_5665,
    0xf429_2244, 0x432a_ff97, 0xab94_23a7, 0xfc93_a039, 0x655b_59c3, 0x8f0c_cc92, 0xffef_f47d, 0x8584_5dd1,
    0x6fa8_7e4f, 0xfe2c_e6e0, 0xa301_4314, 0x4e08_11a1, 0xf753_7e82, 0xbd3a_f235, 0x2ad7_d2bb, 0xeb86_d391,
];

#[cfg(test)]
mod tests {
    use md5::{Digest, Md5};
    use proptest::prelude::*;

    use super::*;

    fn text(len: usize, seed: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 31 + seed * 7) as u8).collect()
    }

    fn check(lens: &[usize]) {
        let texts: Vec<Vec<u8>> = lens.iter().enumerate().map(|(seed, len)| text(*len, seed)).collect();
        let texts: Vec<&[u8]> = texts.iter().map(|text| &text[..]).collect();
        let expected: Vec<[u8; LEN]> = texts.iter().map(|text| Md5::digest(text).into()).collect();
        assert_eq!(digests(texts.iter().copied()), expected, "{lens:?}");
        for ((chain, text), expected) in chains(&texts).into_iter().zip(&texts).zip(&expected) {
            assert_eq!(chain, Chain::of(text), "{lens:?}");
            assert_eq!(&chain.finish(&text[whole(text.len())..], text.len()), expected, "{lens:?}");
        }
    }

    #[test]
    fn each_length_round_a_block() {
        (0..=200).for_each(|len| check(&[len, len + 1, len, 3]));
    }

    #[test]
    fn a_chain_goes_on_with_what_is_appended() {
        let text = text(1000, 3);
        for cut in [0, 1, 63, 64, 65, 500, 999, 1000] {
            let chain = Chain::of(&text[..cut]);
            assert_eq!(chain.finish(&text[whole(cut)..], text.len())[..], Md5::digest(&text)[..]);
        }
    }

    proptest! {
        #[test]
        fn as_one_by_one(lens in proptest::collection::vec(0usize..3000, 0..40)) {
            check(&lens);
        }
    }
}
