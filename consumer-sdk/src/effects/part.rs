//! Records whose effects fit into one transaction.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem};

use super::identity::identity;
use super::{Error, MAX_ACTIONS, MAX_BYTES};
use crate::delivered::Delivered;

/// What the checkpoint and its item take of a transaction's bytes, at most: a lease item is far smaller.
const CHECKPOINT_BYTES: usize = 16 << 10;
/// What an identity item takes, at most: two names, the longest identity and a number.
const IDENTITY_BYTES: usize = 1 << 10;

/// A record and its effects.
#[derive(Debug, Clone)]
pub(super) struct Effect {
    pub(super) delivered: Delivered,
    pub(super) actions: Vec<TransactWriteItem>,
}

impl Effect {
    /// Checks the limits that hold for a record by itself.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.actions.len() + 2 > MAX_ACTIONS {
            return Err(Error::TooMany { actions: self.actions.len() });
        }
        let bytes = self.bytes();
        if bytes + CHECKPOINT_BYTES > MAX_BYTES {
            return Err(Error::TooLarge { bytes });
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        IDENTITY_BYTES + self.actions.iter().map(bytes_of).sum::<usize>()
    }

    /// Items that are known to be touched; DynamoDB refuses a transaction that touches one twice. Of a put
    /// only its table knows which attributes are its key, so it is not among them.
    fn items(&self) -> impl Iterator<Item = String> {
        let key = |action: &TransactWriteItem| {
            let (table, key) = match action {
                TransactWriteItem { update: Some(update), .. } => (update.table_name(), update.key()),
                TransactWriteItem { delete: Some(delete), .. } => (delete.table_name(), delete.key()),
                TransactWriteItem { condition_check: Some(check), .. } => (check.table_name(), check.key()),
                _ => return None,
            };
            let ordered: BTreeMap<&String, &AttributeValue> = key.iter().collect();
            Some(format!("{table}{ordered:?}"))
        };
        std::iter::once(identity(&self.delivered)).chain(self.actions.iter().filter_map(key))
    }
}

/// Puts as many records together as one transaction takes, in order.
pub(super) fn pack(effects: Vec<Effect>) -> Vec<Vec<Effect>> {
    let mut parts: Vec<Vec<Effect>> = Vec::new();
    let (mut actions, mut bytes, mut touched) = (0, 0, BTreeSet::new());
    for effect in effects {
        let items: Vec<String> = effect.items().collect();
        let (more_actions, more_bytes) = (effect.actions.len() + 1, effect.bytes());
        let fits = 1 + actions + more_actions <= MAX_ACTIONS
            && CHECKPOINT_BYTES + bytes + more_bytes <= MAX_BYTES
            && items.iter().all(|item| !touched.contains(item));
        match parts.last_mut().filter(|_| fits) {
            Some(part) => part.push(effect),
            None => {
                (actions, bytes) = (0, 0);
                touched.clear();
                parts.push(vec![effect]);
            }
        }
        actions += more_actions;
        bytes += more_bytes;
        touched.extend(items);
    }
    parts
}

fn bytes_of(action: &TransactWriteItem) -> usize {
    let map = |map: &HashMap<String, AttributeValue>| {
        map.iter().map(|(name, value)| name.len() + value_bytes(value)).sum::<usize>()
    };
    let put = action
        .put
        .as_ref()
        .map_or(0, |put| map(put.item()) + put.expression_attribute_values().map_or(0, map));
    let update = action
        .update
        .as_ref()
        .map_or(0, |update| map(update.key()) + update.expression_attribute_values().map_or(0, map));
    let delete = action
        .delete
        .as_ref()
        .map_or(0, |delete| map(delete.key()) + delete.expression_attribute_values().map_or(0, map));
    let check = action
        .condition_check
        .as_ref()
        .map_or(0, |check| map(check.key()) + check.expression_attribute_values().map_or(0, map));
    put + update + delete + check
}

/// As DynamoDB counts, rounded up.
fn value_bytes(value: &AttributeValue) -> usize {
    match value {
        AttributeValue::S(text) => text.len(),
        AttributeValue::N(number) => number.len() / 2 + 2,
        AttributeValue::B(bytes) => bytes.as_ref().len(),
        AttributeValue::Ss(texts) => texts.iter().map(String::len).sum(),
        AttributeValue::Ns(numbers) => numbers.iter().map(|number| number.len() / 2 + 2).sum(),
        AttributeValue::Bs(all) => all.iter().map(|bytes| bytes.as_ref().len()).sum(),
        AttributeValue::L(values) => 3 + values.iter().map(|value| 1 + value_bytes(value)).sum::<usize>(),
        AttributeValue::M(map) => {
            3 + map.iter().map(|(name, value)| 1 + name.len() + value_bytes(value)).sum::<usize>()
        }
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::{Put, Update};
    use headworks_record::Record;
    use proptest::prelude::*;

    use super::*;
    use crate::position::SequenceNumber;

    fn text(bytes: usize) -> AttributeValue {
        AttributeValue::S("x".repeat(bytes))
    }

    fn put(bytes: usize) -> TransactWriteItem {
        let put = Put::builder().table_name("t").item("v", text(bytes)).build().unwrap();
        TransactWriteItem::builder().put(put).build()
    }

    fn add(counter: &str) -> TransactWriteItem {
        let update = Update::builder().table_name("t").key("id", AttributeValue::S(counter.to_owned()));
        let update = update.update_expression("ADD n :one").build().unwrap();
        TransactWriteItem::builder().update(update).build()
    }

    fn effect(n: usize, actions: Vec<TransactWriteItem>) -> Effect {
        let delivered = Delivered {
            record: Record::builder("k").unwrap().build(),
            stream: "orders".into(),
            shard: "s".into(),
            sequence_number: SequenceNumber::new(n.to_string()).unwrap(),
            sub_sequence_number: 0,
            arrival_ms: 0,
            received: std::time::UNIX_EPOCH,
            origin: None,
        };
        Effect { delivered, actions }
    }

    #[test]
    fn both_sides_of_each_limit_of_one_record() {
        effect(1, vec![put(1); MAX_ACTIONS - 2]).check().unwrap();
        let error = effect(1, vec![put(1); MAX_ACTIONS - 1]).check().unwrap_err();
        assert_eq!((error.code(), &error), ("effects-too-large", &Error::TooMany { actions: 99 }));
        let most = MAX_BYTES - CHECKPOINT_BYTES - IDENTITY_BYTES - 1;
        effect(1, vec![put(most)]).check().unwrap();
        let error = effect(1, vec![put(most + 1)]).check().unwrap_err();
        assert_eq!(error.code(), "effects-too-large");
    }

    #[test]
    fn an_item_is_touched_once_in_a_part() {
        let effects = vec![effect(1, vec![add("a")]), effect(2, vec![add("b")]), effect(3, vec![add("a")])];
        let parts: Vec<usize> = pack(effects).iter().map(Vec::len).collect();
        assert_eq!(parts, [2, 1]);
    }

    proptest! {
        #[test]
        fn parts_keep_order_and_limits(
            sizes in proptest::collection::vec((0usize..99, 0usize..60_000), 0..60),
        ) {
            let effects: Vec<Effect> = sizes.iter().enumerate()
                .map(|(n, (actions, bytes))| effect(n, vec![put(*bytes); *actions]))
                .filter(|effect| effect.check().is_ok())
                .collect();
            let order: Vec<_> = effects.iter().map(|e| e.delivered.sequence_number.clone()).collect();
            let parts = pack(effects);
            for part in &parts {
                prop_assert!(!part.is_empty());
                let actions: usize = part.iter().map(|effect| effect.actions.len() + 1).sum();
                let bytes: usize = part.iter().map(Effect::bytes).sum();
                prop_assert!(actions < MAX_ACTIONS && CHECKPOINT_BYTES + bytes <= MAX_BYTES);
            }
            let packed: Vec<_> =
                parts.into_iter().flatten().map(|effect| effect.delivered.sequence_number).collect();
            prop_assert_eq!(packed, order);
        }
    }
}
