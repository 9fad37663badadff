//! Mail servers that refuse permanently or temporarily, the name in the greeting, and the checks of
//! email addresses.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use diesel::{ExpressionMethods, QueryDsl, RunQueryDsl};
use sealyard_core::{
    accounts::{self, AccountError, NewUser, Registration, Role},
    jobs,
    statements::{self, Statement},
    store::{Database, DbFault, schema},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
};

use super::customer::{shop, worker};
use crate::support::on_both;

/// A mail server that answers RCPT with this line. It records the name in the greeting and the
/// number of attempts.
async fn server(answer: &'static str) -> (u16, Arc<Mutex<(String, usize)>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen: Arc<Mutex<(String, usize)>> = Arc::default();
    let noted = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let noted = Arc::clone(&noted);
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                stream.write_all(b"220 test\r\n").await.ok()?;
                let mut line = String::new();
                loop {
                    line.clear();
                    if stream.read_line(&mut line).await.ok()? == 0 {
                        return Some(());
                    }
                    let reply = match line.split_whitespace().next().unwrap_or_default().to_uppercase().as_str() {
                        "EHLO" | "HELO" => {
                            noted.lock().unwrap().0 = line.split_whitespace().nth(1).unwrap_or_default().to_owned();
                            "250 hello"
                        }
                        "RCPT" => {
                            noted.lock().unwrap().1 += 1;
                            answer
                        }
                        "QUIT" => "221 bye",
                        _ => "250 ok",
                    };
                    stream.write_all(format!("{reply}\r\n").as_bytes()).await.ok()?;
                }
            });
        }
    });
    (port, seen)
}

/// Creates a statement whose mail is waiting to be sent.
fn statement(db: &Database) {
    use schema::statements as s;
    db.write(|conn| {
        let user = crate::support::investor(conn, "ada@example.org");
        let line = serde_json::json!({"opening": 0, "moved_in": 0, "moved_out": 0, "closing": 0});
        let model = serde_json::json!({
            "month": "2026-10", "name": "Ada", "email": "ada@example.org", "first_day": 20727, "end_day": 20758,
            "available": line, "vesting": line, "pledged": line, "contracts": [], "days": [],
        });
        let values =
            (s::public_id.eq("stm_test"), s::user_id.eq(user.id), s::month.eq("2026-10"), s::model.eq(model.to_string()));
        diesel::insert_into(s::table).values((values, s::message_id.eq("x@y"), s::created_at.eq(0))).execute(conn)?;
        let now = i64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros()).unwrap();
        jobs::enqueue(conn, "statement_mail", "stm_test", r#"{"statement":"stm_test"}"#, now)?;
        Ok(())
    })
    .unwrap();
}

fn stored(db: &Database) -> (Statement, String, i64) {
    use schema::jobs as j;
    db.read(|conn| {
        let statement = statements::by_public_id(conn, "stm_test")?.unwrap();
        let (state, attempts) = j::table.filter(j::kind.eq("statement_mail")).select((j::state, j::attempts)).first(conn)?;
        Ok::<_, DbFault>((statement, state, attempts))
    })
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permanent_mail_refusal_is_reported_and_a_temporary_one_retried() {
    for (answer, is_permanent) in
        [("550 5.1.1 no such mailbox", true), ("451 4.3.0 try later", false), ("535 5.7.8 who are you", false)]
    {
        let dir = tempfile::tempdir().unwrap();
        let (port, seen) = server(answer).await;
        let smtp =
            format!("smtp_host = \"127.0.0.1\"\nsmtp_port = {port}\nsmtp_security = \"none\"\nsmtp_hello = \"yard.example\"\n");
        let (shop, db) = shop(dir.path(), &smtp);
        statement(&db);
        let _work = worker(dir.path(), &shop);
        let started = Instant::now();
        while stored(&db).2 == 0 || stored(&db).1 == "running" {
            assert!(started.elapsed() < Duration::from_secs(20), "no delivery was attempted: {answer}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let (statement, state, attempts) = stored(&db);
        assert_eq!((attempts, seen.lock().unwrap().1), (1, 1), "{answer}: no immediate second attempt");
        assert_eq!(seen.lock().unwrap().0, "yard.example");
        assert_eq!(statement.refused_at.is_some(), is_permanent, "{answer}");
        assert_eq!(state, if is_permanent { "failed" } else { "ready" }, "{answer}");
        if is_permanent {
            assert!(statement.refusal.unwrap().contains("no such mailbox"));
            let told = db.read(|conn| jobs::struggling(conn).map_err(DbFault::from)).unwrap();
            assert_eq!(told.len(), 1, "the operator sees it");
        }
    }
}

#[test]
fn a_mailbox_has_one_account_and_an_invalid_address_has_none() {
    on_both(|db| {
        let register = |email: &str| {
            let new = NewUser { email, name: "Ada", password: "long enough", role: Role::Investor };
            db.transact(|conn| accounts::register(conn, &Registration::of(&new)?, crate::support::NOW))
        };
        register("a@ü.de").unwrap();
        assert!(matches!(register("a@xn--tda.de"), Err(AccountError::Taken)));
        assert!(matches!(register("A@Ü.de"), Err(AccountError::Taken)));
        let found = db.read(|conn| accounts::by_email(conn, " a@Ü.DE ").map_err(DbFault::from)).unwrap();
        assert_eq!(found.unwrap().email, "a@xn--tda.de");
        for bad in ["a..b@example.org", "a@-example.org", &format!("{}@example.org", "a".repeat(70))] {
            assert!(matches!(register(bad), Err(AccountError::Email(_))), "{bad}");
        }
    });
}
