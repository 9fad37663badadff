//! A simulated node for one miner of any size, computed from formulas, so that the cost of
//! following such a miner can be measured without sealing anything. It answers only the methods
//! that read the chain.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
};

use actix_web::{App, HttpResponse, HttpServer, web};
use base64::{Engine, prelude::BASE64_STANDARD};
use cid::Cid;
use fil_actor_miner_state::v19::{Deadline, Deadlines, PowerPair};
use fvm_ipld_bitfield::BitField;
use fvm_ipld_encoding::to_vec;
use fvm_shared::{bigint::BigInt, econ::TokenAmount};
use sealyard_filecoin::{
    economics::{EPOCH_SECONDS, EPOCHS_PER_DAY},
    rpc::{BitFieldJson, CidJson, DeadlineState, Partition, SectorInfo},
};
use serde_json::{Value, json};

use crate::{
    rpc::{Params, RpcFailure, response},
    state::block_cid,
};

const DEADLINES: u64 = 48;
const WINDOW: i64 = 60;
/// Sectors of a full partition, at 32 GiB each.
const PARTITION: u64 = 2349;
pub const SECTOR_BYTES: i64 = 32 << 30;
const ACTIVATION: i64 = 10;
const EXPIRATION: i64 = 540 * EPOCHS_PER_DAY;
/// attoFIL per sector.
const PLEDGE: u64 = 150_000_000_000_000_000;
const DAILY_FEE: u64 = 7_000_000_000_000;
/// The network's estimates of its reward and power per epoch, with 128 fractional bits.
const REWARD_POSITION: &str = "30000000000000000000000000000000000000000000000000000000";
const POWER_POSITION: &str = "6000000000000000000000000000000000000000000000000000000000";

#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Sectors at the start, numbered from 0.
    pub sectors: u64,
    /// Sectors added at the end of each deadline.
    pub new_each_window: u64,
    /// Epochs that can be requested.
    pub epochs: i64,
    /// Whether objects are served by their CIDs.
    pub serves_objects: bool,
}

/// A running node.
pub struct LargeMiner {
    pub url: String,
    state: Arc<State>,
}

struct State {
    size: Size,
    head: AtomicI64,
    calls: AtomicU64,
    bytes: AtomicU64,
    epochs: HashMap<Cid, i64>,
    lies: AtomicBool,
}

impl LargeMiner {
    /// Serves on loopback from a thread of this process. Must be called inside a tokio runtime.
    pub fn start(size: Size, head: i64) -> std::io::Result<Self> {
        let epochs = (0..size.epochs)
            .map(|epoch| (tipset_cid(epoch), epoch))
            .collect();
        let state = Arc::new(State {
            size,
            head: head.into(),
            calls: 0.into(),
            bytes: 0.into(),
            epochs,
            lies: false.into(),
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}/rpc/v1", listener.local_addr()?);
        let data = web::Data::from(Arc::clone(&state));
        let server = HttpServer::new(move || {
            App::new()
                .app_data(data.clone())
                .app_data(web::PayloadConfig::new(16 << 20))
                .route("/rpc/v1", web::post().to(rpc))
        });
        tokio::spawn(server.workers(1).disable_signals().listen(listener)?.run());
        Ok(Self { url, state })
    }

    /// The next answer about a deadline's partitions names none.
    pub fn lie_once(&self) {
        self.state.lies.store(true, Ordering::Relaxed);
    }

    pub fn set_head(&self, epoch: i64) {
        self.state.head.store(epoch, Ordering::Relaxed);
    }

    /// Calls answered since the last call of this function, and the bytes of the answers.
    #[must_use]
    pub fn traffic(&self) -> (u64, u64) {
        (
            self.state.calls.swap(0, Ordering::Relaxed),
            self.state.bytes.swap(0, Ordering::Relaxed),
        )
    }
}

async fn rpc(state: web::Data<State>, body: web::Json<Value>) -> HttpResponse {
    let mut request = body.into_inner();
    let name = request
        .get("method")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .replace("Filecoin.", "");
    let params = Params::new(
        request
            .get_mut("params")
            .map(Value::take)
            .unwrap_or_default(),
    );
    let id = request.get("id").cloned().unwrap_or_default();
    let text = response(id, state.answer(&name, &params)).to_string();
    state.calls.fetch_add(1, Ordering::Relaxed);
    state.bytes.fetch_add(
        u64::try_from(text.len()).unwrap_or_default(),
        Ordering::Relaxed,
    );
    HttpResponse::Ok()
        .content_type("application/json")
        .body(text)
}

fn tipset_cid(epoch: i64) -> Cid {
    block_cid(format!("tipset {epoch}").as_bytes())
}

impl State {
    fn answer(&self, name: &str, params: &Params) -> Result<Value, RpcFailure> {
        Ok(match name {
            "StateNetworkVersion" => json!(28),
            "StateNetworkName" => json!("simulated"),
            "StateGetNetworkParams" => {
                json!({
                    "NetworkName": "simulated",
                    "BlockDelaySecs": EPOCH_SECONDS,
                    "PreCommitChallengeDelay": 150
                })
            }
            "ChainHead" => self.tipset(self.head.load(Ordering::Relaxed)),
            "ChainGetGenesis" => self.tipset(0),
            "ChainGetTipSetByHeight" => self.tipset(params.get(0)?),
            "StateMinerProvingDeadline" => self.proving_deadline(),
            "StateVMCirculatingSupplyInternal" => json!({
                "FilVested": "0",
                "FilMined": "0",
                "FilBurnt": "0",
                "FilLocked": "0",
                "FilReserveDisbursed": "0",
                "FilCirculating": "700000000000000000000000000"
            }),
            "StateReadState" => self.read_state(params)?,
            "StateMinerPower" => self.power(self.epoch(params, 1)?),
            "StateMinerAvailableBalance" => json!("0"),
            "StateMinerAllocated" => {
                serde_json::to_value(BitFieldJson(vec![0, self.count(self.epoch(params, 1)?)]))?
            }
            "StateMinerDeadlines" => self.deadline_states(self.epoch(params, 1)?)?,
            "StateMinerPartitions" if self.lies.swap(false, Ordering::Relaxed) => json!([]),
            "StateMinerPartitions" => self.partitions(params.get(1)?, self.epoch(params, 2)?)?,
            "StateMinerSectors" => sectors(&params.get(1)?)?,
            "StateSectorGetInfo" => serde_json::to_value(sector(params.get(1)?))?,
            "StateSectorPreCommitInfo" => {
                return Err(RpcFailure::new(1, "precommit info not found"));
            }
            "ChainReadObj" if self.size.serves_objects => {
                self.object(params.get::<CidJson>(0)?.cid)?
            }
            other => {
                return Err(RpcFailure::new(
                    -32601,
                    format!("method '{other}' not found"),
                ));
            }
        })
    }

    /// The tipset that a parameter names; the head when it names none.
    fn epoch(&self, params: &Params, position: usize) -> Result<i64, RpcFailure> {
        let key: Option<Vec<CidJson>> = params.get(position)?;
        let Some(first) = key.and_then(|key| key.first().copied()) else {
            return Ok(self.head.load(Ordering::Relaxed));
        };
        self.epochs
            .get(&first.cid)
            .copied()
            .ok_or_else(|| RpcFailure::new(1, "tipset not found"))
    }

    /// The miner is alone on its network.
    fn power(&self, epoch: i64) -> Value {
        let bytes = (BigInt::from(SECTOR_BYTES) * self.count(epoch)).to_string();
        let claim = json!({"RawBytePower": bytes, "QualityAdjPower": bytes});
        json!({"MinerPower": claim, "TotalPower": claim, "HasMinPower": true})
    }

    fn tipset(&self, epoch: i64) -> Value {
        let cid = |epoch: i64| json!({"/": tipset_cid(epoch).to_string()});
        let parents = if epoch > 0 {
            json!([cid(epoch - 1)])
        } else {
            json!([])
        };
        json!({"Cids": [cid(epoch)], "Height": epoch, "Blocks": [{
            "Miner": "f01999",
            "Parents": parents,
            "ParentWeight": "1",
            "Height": epoch,
            "ParentStateRoot": cid(0),
            "ParentMessageReceipts": cid(0),
            "Messages": cid(0),
            "Timestamp": epoch * EPOCH_SECONDS,
            "ForkSignaling": 0,
            "ParentBaseFee": "100"
        }]})
    }

    fn proving_deadline(&self) -> Value {
        let head = self.head.load(Ordering::Relaxed);
        let (open, index) = (head - head % WINDOW, (head / WINDOW) % 48);
        json!({
            "CurrentEpoch": head,
            "PeriodStart": open - index * WINDOW,
            "Index": index,
            "Open": open,
            "Close": open + WINDOW,
            "Challenge": open - 20,
            "FaultCutoff": open - 70,
            "WPoStPeriodDeadlines": DEADLINES,
            "WPoStProvingPeriod": EPOCHS_PER_DAY,
            "WPoStChallengeWindow": WINDOW,
            "WPoStChallengeLookback": 20,
            "FaultDeclarationCutoff": 70
        })
    }

    /// Number of sectors at an epoch.
    fn count(&self, epoch: i64) -> u64 {
        self.size.sectors
            + self.size.new_each_window * u64::try_from(epoch / WINDOW).unwrap_or_default()
    }

    /// Sectors of each partition of a deadline, as number ranges `[first, end)`.
    fn ranges(&self, deadline: u64, epoch: i64) -> impl Iterator<Item = (u64, u64)> {
        let count = self.count(epoch);
        let starts = (deadline * PARTITION..count)
            .step_by(usize::try_from(DEADLINES * PARTITION).unwrap_or(usize::MAX));
        starts.map(move |first| (first, (first + PARTITION).min(count)))
    }

    fn size_of(&self, deadline: u64, epoch: i64) -> u64 {
        self.ranges(deadline, epoch)
            .map(|(first, end)| end - first)
            .sum()
    }

    fn deadline(&self, index: u64, epoch: i64) -> Result<Vec<u8>, RpcFailure> {
        // The object changes when its window opens, and when the deadline gets new sectors.
        let windows = epoch / WINDOW - i64::try_from(index).unwrap_or_default();
        let snapshot = block_cid(format!("snapshot {index} {}", windows.div_euclid(48)).as_bytes());
        let count = self.size_of(index, epoch);
        let (none, no_power) = (block_cid(b"none"), || PowerPair {
            raw: 0.into(),
            qa: 0.into(),
        });
        let power = BigInt::from(SECTOR_BYTES) * count;
        let deadline = Deadline {
            partitions: none,
            expirations_epochs: none,
            partitions_posted: BitField::new(),
            early_terminations: BitField::new(),
            live_sectors: count,
            total_sectors: count,
            faulty_power: no_power(),
            optimistic_post_submissions: none,
            sectors_snapshot: snapshot,
            partitions_snapshot: none,
            optimistic_post_submissions_snapshot: none,
            live_power: PowerPair {
                raw: power.clone(),
                qa: power,
            },
            daily_fee: TokenAmount::from_atto(DAILY_FEE) * count,
        };
        to_vec(&deadline).map_err(|error| RpcFailure::new(1, error.to_string()))
    }

    fn deadlines(&self, epoch: i64) -> Result<Vec<u8>, RpcFailure> {
        let due = (0..DEADLINES)
            .map(|index| Ok(block_cid(&self.deadline(index, epoch)?)))
            .collect::<Result<_, RpcFailure>>()?;
        to_vec(&Deadlines { due }).map_err(|error| RpcFailure::new(1, error.to_string()))
    }

    /// Nothing is stored: computes the objects again, latest first, until one has this CID.
    fn object(&self, cid: Cid) -> Result<Value, RpcFailure> {
        let head = self.head.load(Ordering::Relaxed);
        for window in (0..=head / WINDOW).rev() {
            let epoch = window * WINDOW;
            let all = self.deadlines(epoch)?;
            if block_cid(&all) == cid {
                return Ok(json!(BASE64_STANDARD.encode(all)));
            }
            for index in 0..DEADLINES {
                let one = self.deadline(index, epoch)?;
                if block_cid(&one) == cid {
                    return Ok(json!(BASE64_STANDARD.encode(one)));
                }
            }
        }
        Err(RpcFailure::new(
            1,
            format!("blockstore: block {cid} not found"),
        ))
    }

    fn partitions(&self, deadline: u64, epoch: i64) -> Result<Value, RpcFailure> {
        let none = || BitFieldJson(vec![0]);
        let partitions = self.ranges(deadline, epoch).map(|(first, end)| {
            let all = BitFieldJson(vec![first, end - first]);
            Partition {
                all_sectors: all.clone(),
                faulty_sectors: none(),
                recovering_sectors: none(),
                live_sectors: all.clone(),
                active_sectors: all,
            }
        });
        Ok(serde_json::to_value(partitions.collect::<Vec<_>>())?)
    }

    fn deadline_states(&self, epoch: i64) -> Result<Value, RpcFailure> {
        let states = (0..DEADLINES).map(|index| DeadlineState {
            post_submissions: BitFieldJson(vec![0]),
            disputable_proof_count: 0,
            daily_fee: TokenAmount::from_atto(DAILY_FEE) * self.size_of(index, epoch),
        });
        Ok(serde_json::to_value(states.collect::<Vec<_>>())?)
    }

    fn read_state(&self, params: &Params) -> Result<Value, RpcFailure> {
        let epoch = self.epoch(params, 1)?;
        let smoothed =
            |position: &str| json!({"PositionEstimate": position, "VelocityEstimate": "0"});
        let state = match params.get::<String>(0)?.as_str() {
            "f02" => json!({
                "ThisEpochReward": "90000000000000000000",
                "ThisEpochRewardSmoothed": smoothed(REWARD_POSITION),
                "ThisEpochBaselinePower": "20000000000000000000", "Epoch": epoch
            }),
            "f04" => json!({
                "ThisEpochQAPowerSmoothed": smoothed(POWER_POSITION),
                "RampStartEpoch": 0, "RampDurationEpochs": 0, "TotalPledgeCollateral": "0"
            }),
            _ => json!({
                "PreCommitDeposits": "0", "LockedFunds": "0", "FeeDebt": "0",
                "InitialPledge": (BigInt::from(PLEDGE) * self.count(epoch)).to_string(),
                "ProvingPeriodStart": 0, "CurrentDeadline": 0, "DeadlineCronActive": true,
                "Deadlines": {"/": block_cid(&self.deadlines(epoch)?).to_string()}
            }),
        };
        let balance = BigInt::from(PLEDGE) * self.count(epoch);
        Ok(json!({
            "Balance": balance.to_string(),
            "Code": {"/": tipset_cid(0).to_string()},
            "State": state
        }))
    }
}

fn sectors(numbers: &BitFieldJson) -> Result<Value, RpcFailure> {
    let numbers = numbers
        .numbers(1 << 20)
        .ok_or_else(|| RpcFailure::new(1, "too many sectors"))?;
    Ok(serde_json::to_value(
        numbers.into_iter().map(sector).collect::<Vec<_>>(),
    )?)
}

fn sector(number: u64) -> SectorInfo {
    SectorInfo {
        sector_number: number,
        seal_proof: 8,
        sealed_cid: block_cid(&number.to_be_bytes()).into(),
        deal_ids: Vec::new(),
        activation: ACTIVATION,
        expiration: EXPIRATION,
        deal_weight: BigInt::default(),
        verified_deal_weight: BigInt::default(),
        initial_pledge: TokenAmount::from_atto(PLEDGE),
        power_base_epoch: ACTIVATION,
        sector_key_cid: None,
        flags: 0,
        daily_fee: TokenAmount::from_atto(DAILY_FEE),
        expected_day_reward: None,
        expected_storage_pledge: None,
        replaced_day_reward: None,
    }
}
