//! Route tables: exact against a naive interpreter; bad ones refused with line, reason and remedy.

mod bad;
mod changes;
mod editor;
mod exact;
mod explanations;
mod random;
mod reference;

use headworks_record::{Creation, Headers};
use headworks_router::table::{RouteTable, route};

fn headers(pairs: &[(&str, &str)]) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in pairs {
        headers.set(*name, *value).unwrap();
    }
    headers
}

fn streams<'t>(table: &'t RouteTable, pairs: &[(&str, &str)]) -> Vec<&'t str> {
    route(&headers(pairs), table).streams().collect()
}

#[test]
fn the_example_routes_website_events() {
    let table = RouteTable::load(concat!(env!("CARGO_MANIFEST_DIR"), "/routes.example.toml")).unwrap();
    for (kind, stream) in [
        ("order.placed", "orders"),
        ("payment.failed", "payments"),
        ("page.view", "clicks"),
        ("cart.add", "clicks"),
        ("click", "clicks"),
        ("click.banner", "clicks"),
        ("orders", "default"),
        ("login", "default"),
    ] {
        assert_eq!(streams(&table, &[("type", kind)]), [stream], "{kind}");
    }
    assert_eq!(streams(&table, &[]), ["default"]);
    assert_eq!(table.streams(), ["orders", "payments", "clicks", "default"]);
}

#[test]
fn all_matches_is_a_set_and_a_drop_ends_the_walk() {
    let table = RouteTable::from_toml(
        r#"
        mode = "all-matches"
        [[rules]]
        to = ["archive"]
        [[rules]]
        when.debug = "true"
        drop = true
        [[rules]]
        when.type.one-of = ["a", "b"]
        to = ["ab", "archive"]
        [[rules]]
        when.type.not.equals = "a"
        to = ["ab"]
        [default]
        drop = true
        "#,
    )
    .unwrap();
    assert_eq!(streams(&table, &[("type", "a")]), ["archive", "ab"]);
    assert_eq!(streams(&table, &[("type", "b")]), ["archive", "ab"]);
    assert_eq!(streams(&table, &[]), ["archive", "ab"]);
    assert_eq!(streams(&table, &[("type", "b"), ("debug", "true")]), ["archive"]);
}

#[test]
fn a_share_is_as_large_as_it_says_and_part_of_every_larger_one() {
    let table = |share: f64| {
        let text = format!("[[rules]]\nsample = {share}\nto = \"in\"\n[default]\nto = \"out\"\n");
        RouteTable::from_toml(&text).unwrap()
    };
    let shares = [0.001, 0.1, 0.5, 1.0].map(|share| (share, table(share)));
    let mut counts = [0u32; 4];
    let total = 20_000u32;
    for i in 0..total {
        // Ids that somebody else chose, one after the other.
        let mut headers = Headers::new();
        let trace = headworks_record::TraceId(u128::from(i + 1).to_be_bytes());
        headers.set_creation(Creation::child_of(trace, 0, 5, [7; 8]));
        let inside = shares.each_ref().map(|(_, table)| route(&headers, table).streams().eq(["in"]));
        assert!(inside.is_sorted(), "{inside:?}");
        counts.iter_mut().zip(inside).for_each(|(count, inside)| *count += u32::from(inside));
    }
    for ((share, _), count) in shares.iter().zip(counts) {
        let expected = share * f64::from(total);
        assert!((f64::from(count) - expected).abs() <= 5.0 * expected.sqrt(), "{share}: {count}");
    }
}
