//! Words that look like names.

use super::dice::Dice;

const FIRST: [&str; 24] = [
    "Ada", "Alan", "Amina", "Bela", "Chen", "Clara", "Diego", "Elif", "Emmy", "Farid", "Grace", "Hugo",
    "Ines", "Jonas", "Kofi", "Lena", "Mira", "Noor", "Omar", "Petra", "Ravi", "Sofia", "Tomas", "Yuki",
];
const LAST: [&str; 24] = [
    "Abe", "Bauer", "Costa", "Diaz", "Evans", "Fischer", "Garcia", "Hansen", "Ito", "Jensen", "Khan",
    "Lopez", "Meyer", "Nagy", "Okafor", "Patel", "Quinn", "Rossi", "Silva", "Tanaka", "Ueda", "Varga",
    "Weber", "Zhou",
];
const WORDS: [&str; 32] = [
    "amber", "anchor", "basin", "brook", "canal", "cedar", "channel", "copper", "current", "delta", "drift",
    "ember", "fjord", "gate", "harbor", "inlet", "jetty", "lagoon", "ledge", "meadow", "mill", "pebble",
    "pier", "quarry", "reed", "ripple", "sluice", "spring", "stone", "tide", "weir", "willow",
];

pub(super) fn first_name(dice: &mut Dice) -> &'static str {
    dice.pick(&FIRST).copied().unwrap_or_default()
}

pub(super) fn last_name(dice: &mut Dice) -> &'static str {
    dice.pick(&LAST).copied().unwrap_or_default()
}

pub(super) fn word(dice: &mut Dice) -> &'static str {
    dice.pick(&WORDS).copied().unwrap_or_default()
}
