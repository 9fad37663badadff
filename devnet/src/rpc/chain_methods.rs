//! Chain, mempool and wallet methods.

use base64::{Engine, prelude::BASE64_STANDARD};
use fvm_ipld_blockstore::Blockstore;
use fvm_shared::{address::Address, econ::TokenAmount};
use sealyard_filecoin::{
    hash::Hash32,
    rpc::{
        BlockHeader, BlockMessages, CidJson, ElectionProof, Message, MessageSendSpec, MsgLookup,
        ParentMessage, Receipt, Signature, SignedMessage, Ticket, TipSet,
    },
};
use serde_json::{Value, json};

use super::{Params, RpcFailure};
use crate::{
    chain::PushError,
    miner::{Source, draw},
    state::{Account, Chain, TipsetRecord, block_cid},
};

type Answer = Result<Value, RpcFailure>;

/// Another miner's id, for blocks that ours did not win.
const SOMEBODY_ELSE: u64 = 1999;

pub fn call(chain: &mut Chain, name: &str, params: &Params) -> Option<Answer> {
    Some(match name {
        "ChainHead" => by_height(chain, chain.head()),
        // A reorganisation cannot reach further back.
        "ChainGetFinalizedTipSet" => {
            let depth = i64::try_from(chain.config.reorg_depth).unwrap_or(i64::MAX);
            by_height(chain, chain.head().saturating_sub(depth).max(0))
        }
        "ChainGetGenesis" => by_height(chain, 0),
        "ChainGetTipSetByHeight" => params.get(0).and_then(|epoch| by_height(chain, epoch)),
        "ChainGetTipSet" => params
            .epoch(chain, 0)
            .and_then(|epoch| by_height(chain, epoch)),
        "ChainGetBlock" => block(chain, params),
        "ChainGetMessage" => message(chain, params),
        "ChainGetBlockMessages" => block_messages(chain, params),
        "ChainReadObj" => params.get::<CidJson>(0).and_then(|cid| object(chain, &cid)),
        "ChainGetParentMessages" => parent_messages(chain, params),
        "ChainGetParentReceipts" => parent_receipts(chain, params),
        "StateGetRandomnessFromTickets" => randomness(chain, Source::Tickets, params),
        "StateGetRandomnessFromBeacon" => randomness(chain, Source::Beacon, params),
        "MpoolPushMessage" => push(chain, params),
        "MpoolGetNonce" => wallet(chain, params).map(|a| json!(a.nonce)),
        "WalletBalance" => wallet(chain, params).map(|a| json!(a.balance.atto().to_string())),
        "MpoolPush" => push_signed(chain, params),
        "MpoolPending" => pending(chain),
        "WalletHas" => params
            .get::<String>(0)
            .map(|address| json!(chain.wallet_id(&address).is_some())),
        "WalletSignMessage" => params
            .get::<Message>(1)
            .and_then(|m| Ok(serde_json::to_value(chain.sign(&m).map_err(failed)?)?)),
        "GasEstimateMessageGas" => estimate(chain, params),
        "StateSearchMsg" => params.get::<CidJson>(1).and_then(|cid| lookup(chain, &cid)),
        // Searches once and does not wait: no epoch can pass while this request holds the chain.
        "StateWaitMsg" => params
            .get::<CidJson>(0)
            .and_then(|cid| match lookup(chain, &cid)? {
                Value::Null => Err(RpcFailure::new(
                    1,
                    "the message has not landed yet; step the clock",
                )),
                found => Ok(found),
            }),
        _ => return None,
    })
}

/// The bytes of an object in the block store.
fn object(chain: &Chain, cid: &CidJson) -> Answer {
    let bytes = chain
        .blocks
        .get(&cid.cid)?
        .ok_or_else(|| RpcFailure::new(1, format!("blockstore: block {cid} not found")))?;
    Ok(json!(BASE64_STANDARD.encode(bytes)))
}

fn by_height(chain: &Chain, epoch: i64) -> Answer {
    if epoch > chain.head() || epoch < 0 {
        return Err(RpcFailure::new(
            1,
            format!(
                "looking for tipset with height {epoch}, the head is at {}",
                chain.head()
            ),
        ));
    }
    let record = chain
        .tipset(epoch)
        .ok_or_else(|| RpcFailure::new(1, format!("no tipset at {epoch}")))?;
    let tipset = TipSet {
        cids: vec![record.cid.into()],
        blocks: vec![header(chain, record)],
        height: record.epoch,
    };
    Ok(serde_json::to_value(tipset)?)
}

fn header(chain: &Chain, record: &TipsetRecord) -> BlockHeader {
    let epoch = record.epoch;
    let vrf = |purpose: &str| BASE64_STANDARD.encode(chain.digest(purpose, epoch));
    let miner = if record.win_count > 0 {
        chain.config.miner_id
    } else {
        SOMEBODY_ELSE
    };
    let root = chain
        .state_after((epoch - 1).max(0))
        .map_or_else(|| block_cid(b""), |s| s.miner_root);
    BlockHeader {
        miner: Address::new_id(miner),
        ticket: Some(Ticket {
            vrf_proof: vrf("ticket"),
        }),
        election_proof: Some(ElectionProof {
            win_count: record.win_count.max(1),
            vrf_proof: vrf("election"),
        }),
        beacon_entries: Vec::new(),
        win_post_proof: Vec::new(),
        parents: vec![record.parent.map_or_else(before_genesis, CidJson::from)],
        parent_weight: epoch.to_string(),
        height: epoch,
        parent_state_root: root.into(),
        parent_message_receipts: block_cid(format!("receipts/{epoch}").as_bytes()).into(),
        messages: block_cid(format!("{:?}", record.messages).as_bytes()).into(),
        bls_aggregate: Some(Signature {
            kind: 2,
            data: vrf("aggregate"),
        }),
        timestamp: chain.config.genesis_timestamp + epoch * chain.config.epoch_seconds,
        block_sig: Some(Signature {
            kind: 2,
            data: vrf("signature"),
        }),
        fork_signaling: 0,
        parent_base_fee: TokenAmount::from_atto(record.base_fee),
    }
}

fn record_of<'a>(chain: &'a Chain, params: &Params) -> Result<&'a TipsetRecord, RpcFailure> {
    let cid: CidJson = params.get(0)?;
    let epoch = chain
        .epoch_of(&cid.to_string())
        .ok_or_else(|| RpcFailure::new(1, format!("block {cid} not found")))?;
    chain
        .tipset(epoch)
        .ok_or_else(|| RpcFailure::new(1, format!("block {cid} not found")))
}

fn block(chain: &Chain, params: &Params) -> Answer {
    Ok(serde_json::to_value(header(
        chain,
        record_of(chain, params)?,
    ))?)
}

/// The parent that the genesis block names: it has one, as on the main network.
fn before_genesis() -> CidJson {
    CidJson::from(block_cid(b"sealyard-devnet before genesis"))
}

fn message(chain: &Chain, params: &Params) -> Answer {
    let cid: CidJson = params.get(0)?;
    let entry = chain.messages.get(&cid.to_string());
    let entry = entry.ok_or_else(|| RpcFailure::new(1, format!("message {cid} not found")))?;
    Ok(serde_json::to_value(&entry.message)?)
}

/// All messages are listed as BLS-signed.
fn block_messages(chain: &Chain, params: &Params) -> Answer {
    let record = record_of(chain, params)?;
    let mut found = BlockMessages::default();
    for (cid, entry) in record
        .messages
        .iter()
        .filter_map(|cid| Some((cid, chain.messages.get(cid)?)))
    {
        let cid: cid::Cid = cid
            .parse()
            .map_err(|error| RpcFailure::new(1, format!("{cid}: {error}")))?;
        found.bls_messages.push(entry.message.clone());
        found.cids.push(cid.into());
    }
    Ok(serde_json::to_value(found)?)
}

/// Messages of the parent tipset, with their receipts.
fn parents<'a>(
    chain: &'a Chain,
    params: &Params,
) -> Result<Vec<(&'a str, &'a Message, &'a Receipt)>, RpcFailure> {
    let Some(parent) = record_of(chain, params)?.parent else {
        return Ok(Vec::new());
    };
    let epoch = chain.epoch_of(&parent.to_string()).unwrap_or_default();
    let Some(record) = chain.tipset(epoch) else {
        return Ok(Vec::new());
    };
    let found = record.messages.iter().filter_map(|cid| {
        let entry = chain.messages.get(cid)?;
        entry
            .landed
            .as_ref()
            .map(|(_, receipt)| (cid.as_str(), &entry.message, receipt))
    });
    Ok(found.collect())
}

fn parent_messages(chain: &Chain, params: &Params) -> Answer {
    let mut list = Vec::new();
    for (cid, message, _) in parents(chain, params)? {
        let cid: cid::Cid = cid
            .parse()
            .map_err(|error| RpcFailure::new(1, format!("{cid}: {error}")))?;
        list.push(ParentMessage {
            cid: cid.into(),
            message: message.clone(),
        });
    }
    Ok(serde_json::to_value(list)?)
}

fn parent_receipts(chain: &Chain, params: &Params) -> Answer {
    let receipts: Vec<&Receipt> = parents(chain, params)?
        .into_iter()
        .map(|(_, _, receipt)| receipt)
        .collect();
    Ok(serde_json::to_value(receipts)?)
}

fn randomness(chain: &Chain, source: Source, params: &Params) -> Answer {
    let (tag, epoch): (i64, i64) = (params.get(0)?, params.get(1)?);
    if epoch > chain.head() {
        return Err(RpcFailure::new(
            1,
            format!(
                "randomness of epoch {epoch} is in the future, the head is at {}",
                chain.head()
            ),
        ));
    }
    let entropy: Option<String> = params.get(2)?;
    let entropy = BASE64_STANDARD
        .decode(entropy.unwrap_or_default())
        .map_err(|error| RpcFailure::new(-32602, format!("entropy: {error}")))?;
    let Hash32(bytes) = draw(chain, source, tag, epoch, &entropy);
    Ok(json!(BASE64_STANDARD.encode(bytes)))
}

fn failed(error: PushError) -> RpcFailure {
    RpcFailure::new(1, error.to_string())
}

fn push(chain: &mut Chain, params: &Params) -> Answer {
    let message: Message = params.get(0)?;
    let spec: Option<MessageSendSpec> = params.get(1)?;
    let signed = chain
        .push(&message, &spec.unwrap_or_default())
        .map_err(failed)?;
    Ok(serde_json::to_value(signed)?)
}

fn push_signed(chain: &mut Chain, params: &Params) -> Answer {
    let signed: SignedMessage = params.get(0)?;
    Ok(serde_json::to_value(
        chain.push_signed(&signed).map_err(failed)?,
    )?)
}

fn estimate(chain: &Chain, params: &Params) -> Answer {
    let (message, spec): (Message, Option<MessageSendSpec>) = (params.get(0)?, params.get(1)?);
    Ok(serde_json::to_value(
        chain.estimate(&message, &spec.unwrap_or_default()),
    )?)
}

fn pending(chain: &Chain) -> Answer {
    let signed: Result<Vec<SignedMessage>, PushError> = chain
        .world
        .mempool
        .iter()
        .map(|message| chain.sign(message))
        .collect();
    Ok(serde_json::to_value(signed.map_err(failed)?)?)
}

fn wallet<'a>(chain: &'a Chain, params: &Params) -> Result<&'a Account, RpcFailure> {
    let address: String = params.get(0)?;
    let id = chain.wallet_id(&address);
    id.and_then(|id| chain.world.accounts.get(&id))
        .ok_or_else(|| RpcFailure::new(1, format!("actor not found: {address}")))
}

/// The height is that of the tipset that includes the message: the devnet executes it in the same
/// epoch.
fn lookup(chain: &Chain, cid: &CidJson) -> Answer {
    let Some((epoch, receipt)) = chain
        .messages
        .get(&cid.to_string())
        .and_then(|m| m.landed.as_ref())
    else {
        return Ok(Value::Null);
    };
    let key = chain
        .tipset(*epoch)
        .map(|t| vec![CidJson::from(t.cid)])
        .unwrap_or_default();
    let lookup = MsgLookup {
        message: *cid,
        receipt: receipt.clone(),
        return_dec: Value::Null,
        tip_set: key,
        height: *epoch,
    };
    Ok(serde_json::to_value(lookup)?)
}
