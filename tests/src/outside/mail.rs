//! Mail servers that refuse permanently or temporarily, the name in the greeting, and the checks of
//! email addresses.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use diesel::{ExpressionMethods, QueryDsl, RunQueryDsl};
use sealyard_core::{
    accounts::{self, AccountError, NewUser, Registration, Role},
    clock::{Clock, SystemClock},
    ids::UserId,
    jobs,
    statements::{self, Statement},
    store::{Database, DbFault, schema},
};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use super::{
    customer::{shop, worker},
    read,
};
use crate::support::{self, NOW, on_both};

/// The name in the greeting, and the number of attempts to deliver.
type Seen = Arc<Mutex<(String, usize)>>;

/// A mail server that answers RCPT with this line.
async fn server(answer: &'static str) -> (u16, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Seen::default();
    let noted = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(converse(stream, answer, Arc::clone(&noted)));
        }
    });
    (port, seen)
}

async fn converse(stream: TcpStream, answer: &'static str, seen: Seen) -> Option<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 test\r\n").await.ok()?;
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return Some(());
        }
        let reply = format!("{}\r\n", reply(&line, answer, &seen));
        stream.write_all(reply.as_bytes()).await.ok()?;
    }
}

fn reply(line: &str, answer: &'static str, seen: &Seen) -> &'static str {
    let mut words = line.split_whitespace();
    let command = words.next().unwrap_or_default().to_uppercase();
    match command.as_str() {
        "EHLO" | "HELO" => {
            seen.lock().unwrap().0 = words.next().unwrap_or_default().to_owned();
            "250 hello"
        }
        "RCPT" => {
            seen.lock().unwrap().1 += 1;
            answer
        }
        "QUIT" => "221 bye",
        _ => "250 ok",
    }
}

/// Creates a statement of a new investor whose mail is waiting to be sent.
fn statement(db: &Database) {
    let user = db.write(|conn| Ok(support::investor(conn, "ada@example.org")));
    statement_of(db, user.unwrap().id);
    let payload = r#"{"statement":"stm_test"}"#;
    let now = SystemClock.now();
    db.write(|conn| jobs::enqueue(conn, "statement_mail", "stm_test", payload, now))
        .unwrap();
}

/// Creates a statement without its mail.
pub fn statement_of(db: &Database, user: UserId) {
    use schema::statements as s;
    let line = json!({"opening": 0, "moved_in": 0, "moved_out": 0, "closing": 0});
    let model = json!({
        "month": "2026-10",
        "name": "Ada",
        "email": "ada@example.org",
        "first_day": 20727,
        "end_day": 20758,
        "available": line,
        "vesting": line,
        "pledged": line,
        "contracts": [],
        "days": [],
    });
    let model = model.to_string();
    db.write(|conn| {
        let values = (
            s::public_id.eq("stm_test"),
            s::user_id.eq(user),
            s::month.eq("2026-10"),
            s::model.eq(&model),
        );
        let rest = (s::message_id.eq("x@y"), s::created_at.eq(0));
        diesel::insert_into(s::table)
            .values((values, rest))
            .execute(conn)
    })
    .unwrap();
}

fn stored(db: &Database) -> (Statement, String, i64) {
    use schema::jobs as j;
    db.read(|conn| {
        let statement = statements::by_public_id(conn, "stm_test")?.unwrap();
        let (state, attempts) = j::table
            .filter(j::kind.eq("statement_mail"))
            .select((j::state, j::attempts))
            .first(conn)?;
        Ok::<_, DbFault>((statement, state, attempts))
    })
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permanent_mail_refusal_is_reported_and_a_temporary_one_retried() {
    for (answer, is_permanent) in [
        ("550 5.1.1 no such mailbox", true),
        ("451 4.3.0 try later", false),
        ("535 5.7.8 who are you", false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (port, seen) = server(answer).await;
        let smtp = format!(
            "smtp_host = \"127.0.0.1\"\nsmtp_port = {port}\n\
             smtp_security = \"none\"\nsmtp_hello = \"yard.example\"\n"
        );
        let (shop, db) = shop(dir.path(), &smtp);
        statement(&db);
        let _work = worker(dir.path(), &shop);
        let started = Instant::now();
        while stored(&db).2 == 0 || stored(&db).1 == "running" {
            assert!(
                started.elapsed() < Duration::from_secs(20),
                "no delivery was attempted: {answer}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let (statement, state, attempts) = stored(&db);
        assert_eq!(
            (attempts, seen.lock().unwrap().1),
            (1, 1),
            "{answer}: no immediate second attempt"
        );
        assert_eq!(seen.lock().unwrap().0, "yard.example");
        assert_eq!(statement.refused_at.is_some(), is_permanent, "{answer}");
        assert_eq!(
            state,
            if is_permanent { "failed" } else { "ready" },
            "{answer}"
        );
        if is_permanent {
            assert!(statement.refusal.unwrap().contains("no such mailbox"));
            let told = read(&db, jobs::struggling);
            assert_eq!(told.len(), 1, "the operator sees it");
        }
    }
}

#[test]
fn a_mailbox_has_one_account_and_an_invalid_address_has_none() {
    on_both(|db| {
        let register = |email: &str| {
            let new = NewUser {
                email,
                name: "Ada",
                password: "long enough",
                role: Role::Investor,
            };
            db.transact(|conn| accounts::register(conn, &Registration::of(&new)?, NOW))
        };
        register("a@ü.de").unwrap();
        assert!(matches!(register("a@xn--tda.de"), Err(AccountError::Taken)));
        assert!(matches!(register("A@Ü.de"), Err(AccountError::Taken)));
        let found = read(db, |conn| accounts::by_email(conn, " a@Ü.DE "));
        assert_eq!(found.unwrap().email, "a@xn--tda.de");
        for bad in [
            "a..b@example.org",
            "a@-example.org",
            &format!("{}@example.org", "a".repeat(70)),
        ] {
            assert!(
                matches!(register(bad), Err(AccountError::Email(_))),
                "{bad}"
            );
        }
    });
}
