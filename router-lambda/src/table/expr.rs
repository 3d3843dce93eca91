//! Conditions that take an expression: the Common Expression Language (CEL), bounded before it runs.
//!
//! Cost is bounded by what a table may contain, so nothing has to be measured while records wait: an
//! expression's length, nodes, depth and loops are limited, loops do not nest and collect nothing (`map` and
//! `filter` copy their result at every step), regular expressions are left out, and a large payload is not
//! looked into. A misspelt name is refused with the table: while records pass it could only mean "no".

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use cel::common::ast::{EntryExpr, Expr as Ast, IdedExpr};
use cel::objects::{Key, Map};
use cel::{Context, Env, Program, Value};

use super::subject::Subject;

/// The longest expression, in characters.
pub const MAX_EXPR_CHARS: usize = 1024;
/// The most nodes of an expression's tree, what its loops add included.
pub const MAX_EXPR_NODES: usize = 200;
/// The greatest depth of an expression's tree.
pub const MAX_EXPR_DEPTH: usize = 24;
/// The most opening brackets of an expression, and the most choices (`a ? b : c`).
const MAX_EXPR_BRACKETS: usize = 32;
const MAX_EXPR_CHOICES: usize = 8;
/// The most expressions of one table.
pub const MAX_EXPRS: usize = 64;
/// The largest payload that an expression looks into, in bytes; a larger one is `null` to it.
pub const MAX_EXPR_PAYLOAD: usize = 16 * 1024;

const FUNCTIONS: [&str; 9] =
    ["size", "contains", "startsWith", "endsWith", "int", "uint", "double", "string", "bool"];

/// Building it costs as much as many evaluations.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Expr {
    source: Box<str>,
    program: Program,
    uses: Uses,
}

#[derive(Debug, Clone, Copy, Default)]
struct Uses {
    headers: bool,
    key: bool,
    payload: bool,
}

/// Why an expression has no truth value for a record; the rule then does not match.
pub(super) type Unclear = String;

impl Expr {
    /// Compiles an expression; the error is a reason and a remedy.
    pub(super) fn compile(source: &str) -> Result<Self, (String, String)> {
        let refuse = |reason: String, remedy: &str| Err((reason, remedy.to_owned()));
        let chars = source.chars().count();
        if chars > MAX_EXPR_CHARS {
            return refuse(
                format!("its expression has {chars} characters, the limit is {MAX_EXPR_CHARS}"),
                "let producers set a header that says what the expression works out",
            );
        }
        // The parser recurses for each bracket and each `?`, whatever else stands there: counted before it begins.
        let opened = source.matches(['(', '[', '{']).count();
        let asked = source.matches('?').count();
        if opened > MAX_EXPR_BRACKETS || asked > MAX_EXPR_CHOICES {
            return refuse(
                format!(
                    "its expression has {opened} opening brackets and {asked} choices (?), the limits are {MAX_EXPR_BRACKETS} and {MAX_EXPR_CHOICES}"
                ),
                "split it into several rules",
            );
        }
        let program = parse(source).map_err(|reason| {
            (
                format!("its expression is not understood: {reason}"),
                "write it as in `headers.type == \"order\" && int(headers.total) > 100`".to_owned(),
            )
        })?;
        let mut walk = Walk::default();
        walk.node(program.expression(), 1, false, &mut Vec::new())?;
        Ok(Self { source: source.into(), program, uses: walk.uses })
    }

    /// Whether it holds for a record.
    pub(super) fn holds(&self, subject: &Subject<'_>) -> Result<bool, Unclear> {
        let mut context = Context::with_env(Arc::clone(&ENV));
        if self.uses.headers {
            // Of a header that stands several times the first one counts, as in conditions.
            let mut map: HashMap<Key, Value> = HashMap::with_capacity(subject.headers.len());
            for (name, value) in subject.headers.iter() {
                map.entry(Key::from(name)).or_insert_with(|| Value::from(value));
            }
            context.add_variable_from_value("headers", Value::Map(Map { map: Arc::new(map) }));
        }
        if self.uses.key {
            context.add_variable_from_value("key", subject.key);
        }
        if self.uses.payload {
            let json = (subject.data.len() <= MAX_EXPR_PAYLOAD)
                .then(|| serde_json::from_slice::<serde_json::Value>(subject.data).ok())
                .flatten();
            let value = cel::to_value(json).map_err(|error| error.to_string())?;
            context.add_variable_from_value("payload", value);
        }
        match self.program.execute(&context) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(other) => Err(format!("its value is no truth value but a {}", other.type_of())),
            Err(error) => Err(error.to_string()),
        }
    }

    pub(super) fn source(&self) -> &str {
        &self.source
    }
}

/// Parses in a thread of its own: within the limits the parser takes up to some megabytes of stack.
fn parse(source: &str) -> Result<Program, String> {
    const STACK: usize = 16 << 20;
    let parsed = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("expression".to_owned()).stack_size(STACK);
        let parser = thread.spawn_scoped(scope, || ENV.compile(source).map_err(|errors| errors.to_string()));
        let parser = parser.map_err(|error| format!("no thread to parse it in: {error}"))?;
        parser.join().unwrap_or_else(|_| Err("the parser failed".to_owned()))
    });
    parsed.map_err(|shown| shown.lines().next().unwrap_or("it cannot be read").to_owned())
}

/// Counts what an expression may cost.
#[derive(Default)]
struct Walk {
    nodes: usize,
    uses: Uses,
}

type Refusal = (String, String);

impl Walk {
    /// `bound` are the names that loops around this node bring.
    fn node<'e>(
        &mut self,
        node: &'e IdedExpr,
        depth: usize,
        looped: bool,
        bound: &mut Vec<&'e str>,
    ) -> Result<(), Refusal> {
        self.nodes += 1;
        if self.nodes > MAX_EXPR_NODES || depth > MAX_EXPR_DEPTH {
            return Err((
                format!(
                    "its expression has more than {MAX_EXPR_NODES} nodes or is more than {MAX_EXPR_DEPTH} deep"
                ),
                "split it into several rules, or let producers set a header".to_owned(),
            ));
        }
        let below = depth + 1;
        match &node.expr {
            Ast::Ident(name) => self.name(name, bound)?,
            Ast::Select(select) => self.node(&select.operand, below, looped, bound)?,
            Ast::Call(call) => {
                function(&call.func_name)?;
                for part in call.target.iter().map(|target| &**target).chain(&call.args) {
                    self.node(part, below, looped, bound)?;
                }
            }
            Ast::List(list) => {
                for element in &list.elements {
                    self.node(element, below, looped, bound)?;
                }
            }
            Ast::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.node(&entry.key, below, looped, bound)?;
                        self.node(&entry.value, below, looped, bound)?;
                    }
                }
            }
            Ast::Comprehension(walk) => {
                if looped {
                    return Err((
                        "its expression has a loop within a loop".to_owned(),
                        "use all, exists and exists_one side by side, or let producers set a header"
                            .to_owned(),
                    ));
                }
                if matches!(walk.accu_init.expr, Ast::List(_) | Ast::Map(_)) {
                    return Err((
                        "its expression collects values with map or filter".to_owned(),
                        "use all, exists or exists_one".to_owned(),
                    ));
                }
                self.node(&walk.iter_range, below, true, bound)?;
                self.node(&walk.accu_init, below, true, bound)?;
                let outer = bound.len();
                bound.extend([&*walk.iter_var, &*walk.accu_var]);
                bound.extend(walk.iter_var2.as_deref());
                for part in [&walk.loop_cond, &walk.loop_step, &walk.result] {
                    self.node(part, below, true, bound)?;
                }
                bound.truncate(outer);
            }
            Ast::Struct(_) => {
                return Err((
                    "its expression makes a structure".to_owned(),
                    "compare single values".to_owned(),
                ));
            }
            Ast::Literal(_) | Ast::Unspecified => {}
        }
        Ok(())
    }

    fn name(&mut self, name: &str, bound: &[&str]) -> Result<(), Refusal> {
        if bound.contains(&name) {
            return Ok(());
        }
        match name {
            "headers" => self.uses.headers = true,
            "key" => self.uses.key = true,
            "payload" => self.uses.payload = true,
            other => {
                return Err((
                    format!("its expression names {other:?}, which there is not"),
                    "an expression knows headers, key and payload; text stands in quotation marks".to_owned(),
                ));
            }
        }
        Ok(())
    }
}

fn function(name: &str) -> Result<(), Refusal> {
    // Operators are functions with names such as `_==_`, `!_` and `@in`.
    let operator = name.contains('_') && !name.starts_with(|c: char| c.is_ascii_alphabetic());
    if operator || name == "@in" || FUNCTIONS.contains(&name) {
        return Ok(());
    }
    let remedy = match name {
        "matches" => "use startsWith, endsWith, contains, or a glob condition".to_owned(),
        _ => format!("an expression knows {} and has, all, exists, exists_one", FUNCTIONS.join(", ")),
    };
    Err((format!("its expression calls {name:?}, which there is not"), remedy))
}

#[cfg(test)]
mod tests {
    use headworks_record::Headers;

    use super::*;

    fn holds(source: &str, pairs: &[(&str, &str)], key: &str, data: &str) -> Result<bool, Unclear> {
        let mut headers = Headers::new();
        for (name, value) in pairs {
            headers.set(*name, *value).unwrap();
        }
        let expr = Expr::compile(source).map_err(|(reason, remedy)| format!("{reason}; {remedy}")).unwrap();
        expr.holds(&Subject { headers: &headers, key, data: data.as_bytes() })
    }

    #[test]
    fn expressions_look_at_headers_key_and_payload() {
        for (source, expected) in [
            ("headers.type == 'order'", true),
            ("headers['x-y'] == '7'", true),
            ("int(headers['x-y']) > 6 && !(key.startsWith('t'))", true),
            ("has(headers.type) && !has(headers.none)", true),
            ("headers.none == 'x' || headers.type == 'order'", true),
            ("'type' in headers", true),
            ("key == 'session-1'", true),
            ("payload.total > 99 && payload.items.exists(i, i.sku == 'b')", true),
            ("payload.items.all(i, i.sku == 'b')", false),
            ("size(payload.items) == 2 ? key == 'x' : true", false),
            ("headers.exists(name, name.startsWith('x-'))", true),
            ("payload.items.exists_one(i, i.sku == 'a') && headers.type in ['order', 'cart']", true),
        ] {
            let data = r#"{"total": 99.5, "items": [{"sku": "a"}, {"sku": "b"}]}"#;
            let got = holds(source, &[("type", "order"), ("x-y", "7")], "session-1", data);
            assert_eq!(got, Ok(expected), "{source}");
        }
    }

    #[test]
    fn what_has_no_truth_value_says_why() {
        for (source, says) in [
            ("headers.none == 'x'", "No such key"),
            ("int(headers.type) > 1", ""),
            ("payload.total > 1", ""),
            ("headers.type", "no truth value"),
        ] {
            let unclear = holds(source, &[("type", "order")], "k", "no JSON").unwrap_err();
            assert!(unclear.contains(says), "{source}: {unclear}");
        }
        let large = format!(r#"{{"a": "{}"}}"#, "x".repeat(MAX_EXPR_PAYLOAD));
        assert_eq!(holds("payload == null", &[], "k", &large), Ok(true));
    }

    #[test]
    fn what_could_cost_too_much_is_refused() {
        let long = format!("headers.type == '{}'", "x".repeat(MAX_EXPR_CHARS));
        let wide = vec!["key == 'a'"; 70].join("||");
        let nested = |n: usize| format!("{}key == 'a'{}", "!(".repeat(n), ")".repeat(n));
        let (shallow, deep, deeper) = (nested(20), nested(MAX_EXPR_BRACKETS), nested(40));
        let ternary = format!("{}true", "key=='a'?true:".repeat(70));
        let minus = format!("{}1 == 1", "-".repeat(900));
        let brackets = "[".repeat(1000);
        let worst = format!("{}{}", "[".repeat(MAX_EXPR_BRACKETS), "key=='a'?".repeat(MAX_EXPR_CHOICES));
        for (source, says) in [
            (&*long, "characters"),
            (&*wide, "nodes"),
            (&*shallow, ""),
            (&*deep, "nodes"),
            (&*deeper, "opening brackets"),
            (&*ternary, "choices"),
            (&*minus, ""),
            (&*brackets, "opening brackets"),
            (&*worst, "not understood"),
            ("key ==", "not understood"),
            ("ky == 'a'", "names \"ky\""),
            ("key.startWith('a')", "calls \"startWith\""),
            ("key.matches('a')", "a glob condition"),
            ("payload.a.all(x, payload.b.exists(y, y == x))", "a loop within a loop"),
            ("size(payload.a.map(x, x + 1)) > 1", "collects"),
            ("size(payload.a.filter(x, x > 1)) > 1", "collects"),
        ] {
            match Expr::compile(source) {
                Ok(_) => assert!(says.is_empty(), "{source}"),
                Err((reason, remedy)) => {
                    assert!(format!("{reason}; {remedy}").contains(says), "{source}: {reason}; {remedy}")
                }
            }
        }
    }
}
