//! Header and claims are read strictly: every member once, of its type, and no other.

use crate::json::{Json, spoiled};
use crate::world::{Kind, all, b64, next_last, sign, sign_parts};

/// What the tables put in that is as good as what was there.
fn is_as_good(what: &str) -> bool {
    // A session may have an address of one family only.
    ["inner.ipv4: null", "inner.ipv6: null"].contains(&what)
        // Lists of texts may have any number of them; `aud` must have ours.
        || ["groups", "pools"].iter().any(|list| what == format!("{list}: []") || what == format!("{list}: [\"x\"]"))
        || ["grants", "allow", "relays", "sites", "entries"].iter().any(|list| what == format!("{list}: []"))
        || what.ends_with(".gateways: []")
        || [".to", ".services", ".certificate_digests"]
            .iter()
            .any(|list| what.ends_with(&format!("{list}: []")) || what.ends_with(&format!("{list}: [\"x\"]")))
}

// Covers: R12 refuse
#[test]
fn claims_that_are_not_exactly_those_of_the_kind_are_refused() {
    for kind in all() {
        let mut refused = 0;
        for (what, claims) in spoiled(&kind.claims) {
            let found = kind.judge(&kind.signed(&claims));
            if is_as_good(&what) {
                assert!(found.is_ok(), "{} {what}: {found:?}", kind.typ);
                continue;
            }
            let expected = match what.as_str() {
                "aud: []" | r#"aud: ["x"]"# => "token_wrong_audience",
                _ => "token_claims",
            };
            assert_eq!(found, Err(expected), "{} {what}: {claims}", kind.typ);
            refused += 1;
        }
        assert!(refused > 100, "{}: {refused}", kind.typ);
    }
}

/// One token has one text: what serde would read as the same, and what any JSON reader would, is refused too.
#[test]
fn claims_in_another_form_are_refused() {
    for kind in all() {
        let text = kind.claims.to_string();
        let Json::Object(members) = &kind.claims else { panic!() };
        let mut reversed = members.clone();
        reversed.reverse();
        let forms = [
            format!(" {text}"),
            format!("{text}\n"),
            text.replacen(':', ": ", 1),
            text.replacen("\"iss\"", "\"\\u0069ss\"", 1),
            text.replacen("\"example\"", "\"\\u0065xample\"", 1),
            format!("\u{feff}{text}"),
            format!("{text}{text}"),
            format!("{text},"),
            format!("[{text}]"),
            String::new(),
            "null".into(),
            Json::Object(reversed).to_string(),
        ];
        for form in forms {
            assert_ne!(form, text);
            let token = sign_parts(&b64(kind.header().to_string()), &b64(&form));
            assert_eq!(kind.judge(&token), Err("token_claims"), "{} {form}", kind.typ);
        }
    }
}

#[test]
fn words_that_are_none_of_an_enumeration_are_refused() {
    let changed = |typ: &str, from: &str, to: &str| {
        let kind = all().into_iter().find(|kind| kind.typ == typ).unwrap();
        let text = kind.claims.to_string();
        let claims = Json::parse(&text.replacen(from, to, 1));
        assert_ne!(claims, kind.claims, "{from}");
        assert_eq!(kind.judge(&kind.signed(&claims)), Err("token_claims"), "{to}");
    };
    for kind in [r#""bridge""#, r#""Gateway""#, r#""""#, "0", r#"{"gateway":null}"#] {
        changed("rf-enrol+jwt", r#""gateway""#, kind);
    }
    for effect in [
        r#""Revoke""#,
        r#""none""#,
        r#"{"revoke":null}"#,
        r#"{"renew-by":null}"#,
        r#"{"renew-by":"1"}"#,
        r#""renew-by""#,
    ] {
        changed("rf-revocations+jwt", r#""revoke""#, effect);
    }
    for scope in [r#"{"everything":"other"}"#, r#"{"token":"other","key":"x"}"#, r#""token""#, r#"["token","other"]"#] {
        changed("rf-revocations+jwt", r#"{"token":"other"}"#, scope);
    }
    changed("rf-revocations+jwt", r#"{"user":"user-1","below":2}"#, r#"["user-1",2]"#);
    for address in ["10.97.0.009", "10.97.0", "::1", "10.97.0.9/32", " 10.97.0.9"] {
        changed("rf-entitlement+jwt", "10.97.0.9", address);
    }
    // A thumbprint is 43 characters, the last of which has two bits that must be zero.
    let jkt = crate::world::holder().to_string();
    for text in [jkt[1..].to_string(), format!("{jkt}="), format!("{jkt}A"), format!("+{}", &jkt[1..]), next_last(&jkt)]
    {
        changed("rf-claims+jwt", &jkt, &text);
    }
}

#[test]
fn headers_that_are_not_exactly_ours_are_refused() {
    for kind in all() {
        let header = kind.header();
        let Json::Object(members) = &header else { panic!() };
        let mut headers = spoiled(&header);
        for (name, value) in [
            ("crit", r#"["exp"]"#),
            ("crit", "[]"),
            ("jwk", r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#),
            ("x5c", r#"["MIIB"]"#),
            ("x5u", r#""https://other.example/chain""#),
            ("x5t#S256", r#""x""#),
            ("jku", r#""https://other.example/keys""#),
            ("b64", "false"),
            ("zip", r#""DEF""#),
            ("cty", r#""JWT""#),
            ("enc", r#""A256GCM""#),
        ] {
            let more = members.iter().cloned().chain([(name.into(), Json::leaf(value))]).collect();
            headers.push((name.into(), Json::Object(more)));
        }
        for (what, header) in headers {
            assert_eq!(kind.judge(&sign(&header, &kind.claims)), Err("token_malformed"), "{} {what}", kind.typ);
        }
        let mut reversed = members.clone();
        reversed.reverse();
        let text = header.to_string();
        for form in [
            Json::Object(reversed).to_string(),
            format!(" {text}"),
            format!("{text} "),
            text.replace("alg", "\\u0061lg"),
        ] {
            let token = sign_parts(&b64(&form), &b64(kind.claims.to_string()));
            assert_eq!(kind.judge(&token), Err("token_malformed"), "{form}");
        }
    }
}

/// RFC 8725 §3.11: all ordered pairs of kinds, rightly signed.
#[test]
fn no_kind_passes_for_another() {
    let kinds = all();
    let pairs = |a: &Kind, b: &Kind| a.typ != b.typ;
    let mut seen = 0;
    for shown in &kinds {
        for asked in kinds.iter().filter(|asked| pairs(shown, asked)) {
            let found = asked.judge(&shown.text());
            assert!(matches!(found, Err("token_wrong_type" | "too_long")), "{} as {}", shown.typ, asked.typ);
            assert_eq!(
                asked.judge(&sign(&asked.header(), &shown.claims)),
                Err("token_claims"),
                "{} as {}",
                shown.typ,
                asked.typ
            );
            seen += 1;
        }
    }
    assert_eq!(seen, 42);
    for kind in &kinds {
        for typ in [
            "JWT",
            "jwt",
            "dpop+jwt",
            "",
            &kind.typ.to_uppercase(),
            &format!("application/{}", kind.typ),
            &kind.typ[3..],
        ] {
            let header = kind.header().with("typ", Json::leaf(&format!("{typ:?}")));
            assert_eq!(kind.judge(&sign(&header, &kind.claims)), Err("token_wrong_type"), "{typ}");
        }
    }
}
