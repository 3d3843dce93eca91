use std::path::Path;

use super::*;

fn load(file: &str, variables: &[(&str, &str)]) -> Result<Config, Error> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gateway.toml");
    std::fs::write(&path, file).unwrap();
    let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    Config::load(Some(&path), variables)
}

#[test]
fn a_file_and_the_environment_over_it() {
    let file = "listen = \"127.0.0.1:1\"\ntimeout_ms = 5\n[[streams]]\nname = \"a\"\nwriter.linger_ms = 3\n";
    let config = load(file, &[]).unwrap();
    assert_eq!(config.streams[0].writer.linger_ms, 3);
    let config = load(
        file,
        &[
            ("HEADWORKS_GATEWAY_LISTEN", "127.0.0.1:2"),
            ("HEADWORKS_GATEWAY_TIMEOUT_MS", "6"),
            ("HEADWORKS_GATEWAY_STREAMS", "b, c"),
            ("HEADWORKS_GATEWAY_CONFIG", "ignored"),
            ("UNRELATED", "x"),
        ],
    )
    .unwrap();
    assert_eq!((config.listen.port(), config.timeout_ms), (2, 6));
    assert_eq!(config.streams.iter().map(|s| &s.name[..]).collect::<Vec<_>>(), ["b", "c"]);
    let config = Config::load(None, [("HEADWORKS_GATEWAY_STREAMS".into(), "7".into())]).unwrap();
    assert_eq!(config.streams[0].name, "7");
}

#[test]
fn what_is_printed_can_be_read_back() {
    let config = Config { default_stream: Some("inbound".into()), ..Config::for_stream("inbound") };
    assert_eq!(load(&toml::to_string(&config).unwrap(), &[]).unwrap(), config);
}

#[test]
fn mistakes_are_named() {
    let stream = "[[streams]]\nname = \"a\"\n";
    let error = |file: &str, variables: &[(&str, &str)]| load(file, variables).unwrap_err().to_string();
    assert!(error("", &[]).contains("HEADWORKS_GATEWAY_STREAMS"));
    assert!(error(&format!("lisen = 1\n{stream}"), &[]).contains("lisen"));
    assert!(error("=", &[]).contains("not valid TOML"));
    let unknown = error(stream, &[("HEADWORKS_GATEWAY_LISEN", "1")]);
    assert!(unknown.contains("HEADWORKS_GATEWAY_LISEN") && unknown.contains("lisen"), "{unknown}");
    assert!(error("[[streams]]\nname = \"a:b\"", &[]).contains("\"a:b\""));
    assert!(error(&format!("{stream}{stream}"), &[]).contains("twice"));
    assert!(error(&format!("default_stream = \"z\"\n{stream}"), &[]).contains("\"z\""));
    assert!(error(&format!("{stream}writer.linger_ms = 10001"), &[]).contains("linger_ms"));
    assert!(error(&format!("{stream}writer.drain_ms = 1"), &[]).contains("top level"));
    assert!(error(&format!("timeout_ms = 0\n{stream}"), &[]).contains("from 1 to 600000"));
    assert!(error(&format!("credit_bytes = 1048575\n{stream}"), &[]).contains("from 1048576"));
    assert!(error(&format!("http_listen = \"127.0.0.1:4400\"\n{stream}"), &[]).contains("both"));
    assert!(error(&format!("http_buffer_bytes = 16777215\n{stream}"), &[]).contains("from 16777216"));
    for origin in ["shop.example", "https://", "https://Shop.example", "https://shop.example/", "null", ""] {
        let text = error(&format!("cors_origins = [\"{origin}\"]\n{stream}"), &[]);
        assert!(text.contains("cors_origins") && text.contains(&format!("{origin:?}")), "{text}");
    }
    let missing = Config::load(Some(Path::new("/nowhere/gateway.toml")), []).unwrap_err();
    assert!(missing.to_string().contains("/nowhere/gateway.toml"));
}

#[test]
fn budgets_fit_below_the_memory_limit_or_are_refused() {
    let budgets = "receive_bytes = 16777216\nmax_connections = 16\n";
    let stream = "[[streams]]\nname = \"a\"\nwriter.max_buffered_bytes = 33554432\n";
    let needed = load(&format!("{budgets}{stream}"), &[]).unwrap().memory();
    // 64 for the program, 5 for a connection, three times what is received, 10/3 of what is written.
    assert_eq!(needed, (64 << 20) + 16 * (5 << 20) + 3 * (16 << 20) + (32 << 20) * 10 / 3);
    let with =
        |limit: u64, more: &str| load(&format!("memory_limit_bytes = {limit}\n{more}{budgets}{stream}"), &[]);
    assert_eq!(with(needed, "").unwrap().memory_limit_bytes, Some(needed));
    let error = with(needed - 1, "").unwrap_err();
    assert_eq!(error.code(), "config-invalid");
    let text = error.to_string();
    for part in
        [&needed.to_string(), &(needed - 1).to_string(), "48 MiB for receive_bytes", "raise the limit"]
    {
        assert!(text.contains(part), "{text}");
    }
    assert!(!text.contains("http_buffer_bytes"), "{text}");
    // Another listener has bodies and connections of its own.
    let http = "http_listen = \"127.0.0.1:0\"\n";
    let text = with(needed, http).unwrap_err().to_string();
    assert!(text.contains("128 MiB for http_buffer_bytes"), "{text}");
    let twice = format!("{stream}[[streams]]\nname = \"b\"\n");
    assert!(load(&format!("memory_limit_bytes = {needed}\n{budgets}{twice}"), &[]).is_err());
    for (setting, bounds) in
        [("receive_bytes = 16777215", "from 16777216"), ("max_connections = 0", "from 1 to")]
    {
        let text = load(&format!("{setting}\n{stream}"), &[]).unwrap_err().to_string();
        assert!(text.contains(bounds), "{text}");
    }
}

#[test]
fn settings_of_http() {
    let stream = "[[streams]]\nname = \"a\"\n";
    let config = load(stream, &[]).unwrap();
    assert_eq!((config.http_listen, config.cors_origins.len()), (None, 0));
    let variables = [
        ("HEADWORKS_GATEWAY_HTTP_LISTEN", "127.0.0.1:4480"),
        ("HEADWORKS_GATEWAY_CORS_ORIGINS", "https://shop.example, http://[::1]:3000"),
        ("HEADWORKS_GATEWAY_HTTP_BUFFER_BYTES", "16777216"),
    ];
    let config = load(stream, &variables).unwrap();
    assert_eq!(config.http_listen.unwrap().port(), 4480);
    assert_eq!(config.cors_origins, ["https://shop.example", "http://[::1]:3000"]);
    assert_eq!(load(&toml::to_string(&config).unwrap(), &[]).unwrap(), config);
    let every = [("HEADWORKS_GATEWAY_CORS_ORIGINS", "*")];
    assert_eq!(load(stream, &every).unwrap().cors_origins, ["*"]);
}

#[test]
fn nothing_beyond_loopback_unless_told() {
    let mut config = Config::for_stream("a");
    for loopback in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        config.listen = loopback.parse().unwrap();
        config.validate().unwrap();
    }
    for beyond in ["0.0.0.0:1", "10.0.0.1:1", "[::]:1"] {
        config.listen = beyond.parse().unwrap();
        assert_eq!(config.validate().unwrap_err().code(), "listen-exposed", "{beyond}");
    }
    config.listen = Config::default().listen;
    config.http_listen = Some("0.0.0.0:1".parse().unwrap());
    let error = config.validate().unwrap_err();
    assert_eq!(error.code(), "listen-exposed");
    assert!(error.to_string().starts_with("http_listen is 0.0.0.0:1"), "{error}");
    config.listen = "10.0.0.1:1".parse().unwrap();
    config.allow_beyond_loopback = true;
    config.validate().unwrap();
}

/// The names of all settings within a value, but for those of maps whose names the user gives.
fn names(value: &toml::Value, found: &mut std::collections::BTreeSet<String>) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                found.insert(name.clone());
                if !matches!(&name[..], "headers" | "writer") {
                    names(value, found);
                }
            }
        }
        toml::Value::Array(values) => values.iter().for_each(|value| names(value, found)),
        _ => {}
    }
}

#[test]
fn the_example_is_valid_and_names_every_setting() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("gateway.example.toml");
    let config = Config::load(Some(&path), []).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let (mut written, mut known) = Default::default();
    names(&toml::Value::Table(text.parse().unwrap()), &mut written);
    // What the example sets is everything that is printed, and so is what it leaves out.
    names(&toml::Value::try_from(&config).unwrap(), &mut known);
    assert_eq!(known.difference(&written).collect::<Vec<_>>(), Vec::<&String>::new());
    let defaults = Config { auth: config.auth.clone(), ..Config::for_stream("inbound") };
    assert_eq!((defaults.timeout_ms, defaults.drain_ms), (config.timeout_ms, config.drain_ms));
    assert_eq!(
        (defaults.credit_records, defaults.credit_bytes),
        (config.credit_records, config.credit_bytes)
    );
    assert_eq!(defaults.unhealthy_after_ms, config.unhealthy_after_ms);
}

#[test]
fn settings_of_authentication_fit_together() {
    let error = |rest: &str| {
        let text = format!("{rest}\n[[streams]]\nname = \"a\"\n");
        load(&text, &[]).map_or_else(|error| error.to_string(), |_| "ok".to_owned())
    };
    let all = "[[principals]]\nname = \"*\"";
    let jwt = "[auth.jwt]\nissuer = \"i\"\naudience = [\"a\"]\n";
    let cases = [
        (format!("[auth]\nkey_file = \"k\"\n{all}"), "ok"),
        ("[auth]\nkey_file = \"k\"".to_owned(), "nobody could write"),
        (format!("[auth]\ncertificate_name = \"san-uri\"\n{all}"), "tls.client_ca"),
        (
            "[tls]\ncertificate = \"c\"\nkey = \"k\"\nclient_certificate_required = true".to_owned(),
            "tls.client_ca",
        ),
        ("[[principals]]\nname = \"local\"\nrecords_per_s = 1".to_owned(), "ok"),
        ("[[principals]]\nname = \"shop\"".to_owned(), "nobody"),
        (format!("{all}\n{all}"), "twice"),
        (format!("{all}\nrecords_per_s = 0"), "from 1 to 1000000000"),
        (format!("{all}\nrecords_per_s = 1000000000"), "ok"),
        (format!("{all}\nbytes_per_s = 0"), "from 1 to 1000000000000"),
        (format!("{all}\nin_flight_bytes = 1048575"), "from 1048576"),
        (format!("{all}\nin_flight_bytes = 1048576"), "ok"),
        (format!("{all}\nstreams = [\"b*\"]"), "\"b*\""),
        (format!("{all}\nstreams = [\"a*\"]"), "ok"),
        (format!("{all}\nheaders = {{ Type = [\"x\"] }}"), "\"Type\""),
        (format!("{all}\nheaders = {{ type = [] }}"), "\"type\""),
        (format!("{jwt}{all}"), "both or neither"),
        (format!("{jwt}jwks_file = \"f\"\njwks_url = \"https://x\"\n{all}"), "both or neither"),
        (format!("{jwt}jwks_url = \"http://issuer.example/\"\n{all}"), "not encrypted"),
        (format!("{jwt}jwks_file = \"f\"\nleeway_s = 300\n{all}"), "ok"),
        (format!("{jwt}jwks_file = \"f\"\nleeway_s = 301\n{all}"), "from 0 to 300"),
        (format!("{jwt}jwks_file = \"f\"\nalgorithms = [\"HS256\"]\n{all}"), "HS256"),
        (format!("{jwt}jwks_file = \"f\"\njwks_refetch_s = 0\n{all}"), "from 1 to 3600"),
        ("[audit]\nfile = \"f\"\ninterval_s = 0".to_owned(), "from 1 to 3600"),
        ("unhealthy_after_ms = 99".to_owned(), "from 100 to 600000"),
        ("unhealthy_after_ms = 100".to_owned(), "ok"),
    ];
    for (text, expected) in cases {
        let error = error(&text);
        assert!(error.contains(expected), "{text}\n{error}");
    }
}

#[test]
fn credentials_are_not_taken_in_the_clear_beyond_loopback() {
    let mut config = Config { principals: vec![PrincipalConfig::unlimited("*")], ..Config::for_stream("a") };
    config.auth.key_file = Some("keys.toml".into());
    config.validate().unwrap();
    config.listen = "0.0.0.0:1".parse().unwrap();
    config.allow_beyond_loopback = true;
    assert_eq!(config.validate().unwrap_err().code(), "listen-unencrypted");
    config.allow_beyond_loopback = false;
    config.allow_unencrypted = true;
    config.validate().unwrap();
    config.allow_unencrypted = false;
    let tls = TlsConfig {
        certificate: "c".into(),
        key: "k".into(),
        client_ca: None,
        client_certificate_required: false,
    };
    config.tls = Some(tls);
    config.validate().unwrap();
    // Encryption alone lets everybody in.
    config.auth = AuthConfig::default();
    config.principals.clear();
    assert_eq!(config.validate().unwrap_err().code(), "listen-exposed");
}

#[test]
fn a_spools_settings_are_checked_on_both_sides_of_their_bounds() {
    let with = |settings: &str| {
        let directory = if settings.contains("directory") { "" } else { "directory = \"/s\"\n" };
        load(
            &format!("[[streams]]\nname = \"a\"\nack = \"spool\"\n[streams.spool]\n{directory}{settings}\n"),
            &[],
        )
    };
    with("").unwrap();
    for (setting, low, high) in [
        ("segment_bytes", 1_048_576_u64, 1_073_741_824_u64),
        ("commit_bytes", 65_536, 33_554_432),
        ("commit_linger_ms", 0, 1_000),
        ("pending_bytes", 20_971_520, 1_073_741_824),
    ] {
        for good in [low, high] {
            with(&format!("max_bytes = 1099511627776\n{setting} = {good}")).unwrap();
        }
        for bad in [low.checked_sub(1), Some(high + 1)].into_iter().flatten() {
            let error =
                with(&format!("max_bytes = 1099511627776\n{setting} = {bad}")).unwrap_err().to_string();
            assert!(error.contains(setting) && error.contains(&bad.to_string()), "{error}");
        }
    }
    let segments = 67_108_864_u64;
    with(&format!("max_bytes = {}", 4 * segments)).unwrap();
    assert!(
        with(&format!("max_bytes = {}", 4 * segments - 1)).unwrap_err().to_string().contains("max_bytes")
    );
    assert!(with("max_bytes = 1099511627777").unwrap_err().to_string().contains("max_bytes"));
    assert!(with("directory = \"\"").unwrap_err().to_string().contains("spool.directory"));
}

#[test]
fn protect_rules_are_checked_on_both_sides_of_their_bounds() {
    let with = |rules: &str| {
        load(&format!("[[streams]]\nname = \"a\"\n[streams.protect]\nkeys = \"/k\"\n{rules}"), &[])
    };
    let rule = |pointer: &str, rest: &str| {
        format!("[[streams.protect.rules]]\npointer = \"{pointer}\"\naction = \"{rest}\n")
    };
    let drops = |pointer: &str| rule(pointer, "drop\"");
    let longest = format!("/{}", "p".repeat(1023));
    for good in [
        drops("/a"),
        drops(&longest),
        drops("/a~0b~1c"),
        drops("/a").repeat(256),
        rule("", "hash\"\nkey = \"k\""),
        rule("/a", "drop\"\nwhen = { header = \"h\" }"),
    ] {
        with(&good).unwrap();
    }
    for (bad, said) in [
        ("rules = []\n".to_owned(), "1 to 256 rules"),
        (drops("/a").repeat(257), "1 to 256 rules"),
        (drops(&format!("{longest}p")), "1,024 bytes"),
        (drops("a"), "begin with '/'"),
        (drops("/a~2"), "~0 and ~1"),
        (drops("/a~"), "~0 and ~1"),
        (drops(""), "whole payload"),
        (rule("/a", "drop\"\nkey = \"k\""), "remove key"),
        (rule("/a", "hash\""), "take a key"),
        (rule("/a", "encrypt\""), "take a key"),
        (rule("/a", "drop\"\nwhen = { header = \"\" }"), "no header"),
    ] {
        let error = with(&bad).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    let keyless = load(
        &format!("[[streams]]\nname = \"a\"\n[streams.protect]\n{}", rule("/a", "hash\"\nkey = \"k\"")),
        &[],
    );
    assert!(keyless.unwrap_err().to_string().contains("protect.keys"));
}
