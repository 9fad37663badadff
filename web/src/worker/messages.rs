//! The outbox to the chain: pushes stored messages, watches them to their receipt, acts on it. No message waits for another one.

use anyhow::{Context, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use fvm_shared::{address::Address, econ::TokenAmount};
use sealyard_core::{
    capacity::Pool,
    clock::{DAY, HOUR, Micros, SECOND},
    ids::{PostId, SectorId},
    ledger::LedgerError,
    proving,
    sealing::{self, Activation, Landing, Message, MessageState, OnChain, Purpose},
    store::DbFault,
};
use sealyard_filecoin::rpc::{self, MsgLookup, RpcError};

use super::{Each, TurnResult, block_rewards::base_fee_before, pipeline::miner_address, pools};
use crate::app::{Shared, read, transact};

/// How far back a receipt is looked for beyond the message's age, epochs.
const LOOKBACK: i64 = 2 * 2880;
/// The shortest there are: what is looked through is never too little.
const EPOCH_SECONDS: i64 = 30;

pub async fn turn(app: Shared) -> TurnResult {
    let (built, pushed) = read(&app, |conn| {
        Ok((sealing::messages_in_state(conn, MessageState::Built)?, sealing::messages_in_state(conn, MessageState::Pushed)?))
    })
    .await?;
    if built.is_empty() && pushed.is_empty() {
        return Ok(());
    }
    let pools = pools(&app).await?;
    let of = |message: &Message| pools.iter().find(|p| p.id == message.pool_id).context("the message's pool is gone");
    let mut all = Each::default();
    // Proofs have an hour at most, the others a day.
    let (proofs, others): (Vec<&Message>, Vec<&Message>) = built.iter().partition(|m| m.purpose() == Some(Purpose::WindowPost));
    for message in proofs.into_iter().chain(others) {
        match push(&app, of(message)?, message).await {
            Ok(()) => {}
            Err(error) => match error.downcast_ref::<RpcError>() {
                Some(RpcError::Node { message: text, .. }) => {
                    refused(&app, message, text).await?;
                    all.note(Err(error));
                }
                // The next one would not get there either.
                _ => return Err(error),
            },
        }
    }
    for message in &pushed {
        if !all.goes_on(watch(&app, of(message)?, message).await) {
            break;
        }
    }
    all.end()
}

/// A message that the node does not take is tried again for so long before what it is for learns of it.
const PATIENCE: Micros = HOUR;
/// If the wallet or the miner cannot pay, no sector is to blame, and it ends when somebody pays.
const UNPAID_PATIENCE: Micros = DAY;

/// Whether a message that was built some time ago is given up now. A proof always is: it is made into a new message, at a later head.
fn is_given_up(purpose: Option<Purpose>, text: &str, waited: Micros) -> bool {
    let unpaid = ["not enough funds", "SysErrInsufficientFunds", "InsufficientFunds", "insufficient funds", "(RetCode=6)"];
    match purpose {
        Some(Purpose::WindowPost) => true,
        _ if unpaid.iter().any(|words| text.contains(words)) => waited > UNPAID_PATIENCE,
        _ => waited > PATIENCE,
    }
}

/// The node runs a message before it takes it, and refuses what would fail on chain.
async fn refused(app: &Shared, message: &Message, text: &str) -> TurnResult {
    let (message, text, now) = (message.clone(), text.to_owned(), app.now());
    let purpose = message.purpose();
    let given_up = is_given_up(purpose, &text, now - message.created_at);
    tracing::error!(purpose = message.purpose, text, given_up, "the node does not take a message");
    transact(app, move |conn| {
        if !given_up {
            return Ok(sealing::refused(conn, message.id, &text)?);
        }
        if sealing::give_up(conn, message.id, &text, now)? {
            match purpose {
                Some(Purpose::WindowPost) => proving::landed(conn, PostId(message.subject_id), REFUSED)?,
                Some(purpose @ (Purpose::PreCommit | Purpose::ProveCommit)) => {
                    let sector = sealing::sector_by_id(conn, SectorId(message.subject_id))?;
                    let reason = format!("the node does not take its {}: {text}", purpose.name());
                    sealing::mark_on_chain(conn, sector, OnChain::MessageFailed { purpose, reason }, now)?;
                }
                Some(Purpose::Recover) | None => {}
            }
        }
        Ok::<_, LedgerError>(())
    })
    .await?;
    Ok(())
}

/// As an exit code: it has not been run on chain.
const REFUSED: i64 = -1;

async fn push(app: &Shared, pool: &Pool, message: &Message) -> TurnResult {
    let miner = miner_address(pool)?;
    let worker: Address = app.node.miner_info(&miner).await?.worker;
    let request = rpc::Message {
        version: 0,
        to: miner,
        from: worker,
        nonce: 0,
        value: TokenAmount::default(),
        gas_limit: 0,
        gas_fee_cap: TokenAmount::default(),
        gas_premium: TokenAmount::default(),
        method: u64::try_from(message.method)?,
        params: BASE64_STANDARD.encode(&message.params),
        cid: None,
    };
    let signed = app.node.push(&request, &message.uuid).await?;
    let (id, cid, now) = (message.id, signed.cid.to_string(), app.now());
    tracing::info!(purpose = message.purpose, %cid, "message pushed");
    transact(app, move |conn| Ok::<_, DbFault>(sealing::pushed(conn, id, &cid, now)?)).await?;
    Ok(())
}

async fn watch(app: &Shared, pool: &Pool, message: &Message) -> TurnResult {
    let cid = message.cid.as_deref().context("a pushed message without a CID")?;
    let age = (app.now() - message.changed_at) / SECOND / EPOCH_SECONDS;
    let Some(found) = app.node.search_message(cid, age.max(0) + LOOKBACK).await? else { return Ok(()) };
    // Somebody may have replaced it by one with more gas.
    let cid = found.message.cid.to_string();
    if found.receipt.exit_code != 0 {
        tracing::error!(purpose = message.purpose, %cid, exit_code = found.receipt.exit_code, "message failed on chain");
    }
    let landing = landing(app, &cid, &found).await?;
    match message.purpose() {
        Some(Purpose::WindowPost) => post_landed(app, message, landing).await,
        Some(purpose @ (Purpose::PreCommit | Purpose::ProveCommit)) => sector_landed(app, pool, message, landing, purpose).await,
        Some(Purpose::Recover) | None => record(app, message, landing).await,
    }
}

/// The receipt, with what its gas cost.
async fn landing(app: &Shared, cid: &str, found: &MsgLookup) -> anyhow::Result<Landing> {
    let sent = app.node.message(cid).await?;
    let base_fee = base_fee_before(app, found.height).await?;
    let receipt = &found.receipt;
    ensure!(
        u32::try_from(receipt.exit_code).is_ok() && receipt.gas_used >= 0 && sent.gas_limit >= receipt.gas_used,
        "the node says that message {cid} ended with exit code {} and {} of {} gas; nothing is recorded until that can be",
        receipt.exit_code,
        receipt.gas_used,
        sent.gas_limit
    );
    let cost = sent.gas_offer().cost(receipt.gas_used, &base_fee);
    Ok(Landing {
        epoch: found.height,
        exit_code: receipt.exit_code,
        gas_used: receipt.gas_used,
        burnt_atto: cost.burnt.atto().to_string(),
        tip_atto: cost.tip.atto().to_string(),
    })
}

async fn record(app: &Shared, message: &Message, landing: Landing) -> TurnResult {
    let (id, now) = (message.id, app.now());
    transact(app, move |conn| Ok::<_, DbFault>(sealing::landed(conn, id, &landing, now)?)).await?;
    Ok(())
}

async fn post_landed(app: &Shared, message: &Message, landing: Landing) -> TurnResult {
    let (id, post, now) = (message.id, PostId(message.subject_id), app.now());
    transact(app, move |conn| {
        if sealing::landed(conn, id, &landing, now)? {
            proving::landed(conn, post, landing.exit_code)?;
        }
        Ok::<_, DbFault>(())
    })
    .await?;
    Ok(())
}

/// The receipt and what the chain says of the sector are recorded together.
async fn sector_landed(app: &Shared, pool: &Pool, message: &Message, landing: Landing, purpose: Purpose) -> TurnResult {
    let id = SectorId(message.subject_id);
    let sector = read(app, move |conn| sealing::sector_by_id(conn, id)).await?;
    let failed = || OnChain::MessageFailed { purpose, reason: format!("{} exit code {}", purpose.name(), landing.exit_code) };
    let fact = match purpose {
        _ if landing.exit_code != 0 => failed(),
        Purpose::PreCommit => pre_committed(app, pool, sector.number).await?,
        _ => activated(app, pool, sector.number).await?,
    };
    let (message_id, now) = (message.id, app.now());
    transact(app, move |conn| {
        if sealing::landed(conn, message_id, &landing, now)? {
            let sector = sealing::sector_by_id(conn, id)?;
            sealing::mark_on_chain(conn, sector, fact.clone(), now)?;
        }
        Ok::<_, LedgerError>(())
    })
    .await?;
    Ok(())
}

async fn pre_committed(app: &Shared, pool: &Pool, number: i64) -> anyhow::Result<OnChain> {
    let info = app.node.pre_commit_info(&miner_address(pool)?, u64::try_from(number)?, &Vec::new()).await?;
    let info = info.with_context(|| format!("sector {number}: the PreCommit landed, but the node does not know it yet"))?;
    let delay = app.node.network_params().await?.pre_commit_challenge_delay;
    Ok(OnChain::PreCommitted { seed_epoch: info.pre_commit_epoch + delay })
}

async fn activated(app: &Shared, pool: &Pool, number: i64) -> anyhow::Result<OnChain> {
    let miner = miner_address(pool)?;
    let on_chain = u64::try_from(number)?;
    let unknown = || format!("sector {number}: the ProveCommit landed, but the node does not know the sector yet");
    let info = app.node.sector_info(&miner, on_chain, &Vec::new()).await?.with_context(unknown)?;
    let location = app.node.sector_location(&miner, on_chain, &Vec::new()).await?.with_context(unknown)?;
    let expiration = app.node.sector_expiration(&miner, on_chain).await?.on_time;
    Ok(OnChain::Activated(Activation {
        activation: info.activation,
        expiration,
        deadline: i64::try_from(location.deadline)?,
        partition: i64::try_from(location.partition)?,
    }))
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, sync::Arc};

    use actix_web::{App as Server, HttpResponse, HttpServer, web};
    use sealyard_core::{
        capacity::{NewPool, create_pool},
        clock::SystemClock,
    };
    use serde_json::{Value, json};

    use super::*;
    use crate::{app::App, config::Config};

    /// A node that takes every message but those with the parameters `bad`.
    async fn node(request: web::Json<Value>) -> HttpResponse {
        let cid = json!({"/": "bafy2bzacecmda75ovposbdateg7eyhwij65zklgyijgcjwynlklmqazpwlhba"});
        let message = &request["params"][0];
        let answer = match request["method"].as_str() {
            Some("Filecoin.StateMinerInfo") => json!({"result": {
                "Owner": "f0100", "Worker": "f0101", "Beneficiary": "f0100", "WindowPoStProofType": 5, "SectorSize": 2048,
                "WindowPoStPartitionSectors": 2, "ConsensusFaultElapsed": -1,
            }}),
            _ if message["Params"] == BASE64_STANDARD.encode("bad") => {
                json!({"error": {"code": 1, "message": "message execution failed: exit 16"}})
            }
            _ => json!({"result": {"Message": message, "CID": cid, "Signature": {"Type": 1, "Data": ""}}}),
        };
        let mut answer = answer;
        (answer["jsonrpc"], answer["id"]) = (json!("2.0"), request["id"].clone());
        HttpResponse::Ok().json(answer)
    }

    #[actix_web::test]
    async fn a_message_that_the_node_refuses_does_not_keep_the_next_from_being_pushed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = HttpServer::new(|| Server::new().default_service(web::post().to(node))).workers(1).listen(listener).unwrap();
        let running = tokio::spawn(server.run());
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            database_url: format!("sqlite://{}/house.db", dir.path().display()),
            session_secret: "0123456789abcdef0123456789abcdef".into(),
            node_url: format!("http://{address}/rpc/v1"),
            ..Config::default()
        };
        let app = App::new(config, Arc::new(SystemClock)).unwrap();
        app.db.migrate().unwrap();
        let now = app.now();
        let built = app.db.transact(|conn| {
            let pool = create_pool(conn, &NewPool::new("Test", 1000, 2048, now))?;
            for (subject, params) in [(1, b"bad".as_slice()), (2, b"good")] {
                sealing::build_message(conn, pool.id, Purpose::PreCommit, subject, 0, (25, params), now)?;
            }
            Ok::<_, DbFault>(())
        });
        built.unwrap();
        let error = turn(app.clone()).await.unwrap_err().to_string();
        assert!(error.contains("exit 16"), "{error}");
        let of = |state| app.db.read(|conn| sealing::messages_in_state(conn, state).map_err(DbFault::from)).unwrap();
        let (waiting, pushed) = (of(MessageState::Built), of(MessageState::Pushed));
        assert_eq!((waiting.len(), waiting[0].subject_id), (1, 1));
        assert!(waiting[0].last_error.as_ref().is_some_and(|why| why.contains("exit 16")));
        assert_eq!((pushed.len(), pushed[0].subject_id), (1, 2));
        running.abort();
    }

    #[test]
    fn a_sector_is_to_blame_after_an_hour_an_empty_wallet_after_a_day_and_a_proof_is_sent_anew() {
        let old_ticket = "message execution failed: exit 16, reason: ticket too old";
        let poor = "mpool push: not enough funds: 0.1 FIL";
        let sectors = Some(Purpose::PreCommit);
        assert_eq!([0, PATIENCE + 1].map(|waited| is_given_up(sectors, old_ticket, waited)), [false, true]);
        assert_eq!([PATIENCE + 1, DAY + 1].map(|waited| is_given_up(sectors, poor, waited)), [false, true]);
        assert!(is_given_up(Some(Purpose::WindowPost), old_ticket, 0));
    }
}
