//! `StateMiner*` and `StateSector*`: the miner's state at a tipset.

use fil_actor_miner_state::v19::{Deadline, Deadlines, Partition, SectorOnChainInfo, State};
use fvm_ipld_bitfield::BitField;
use sealyard_filecoin::rpc::{
    self, BitFieldJson, DeadlineState, PreCommitInfo, ProvingDeadline, SectorCount,
    SectorExpiration, SectorInfo, SectorLocation,
};
use serde_json::{Value, json};

use super::{Params, RpcFailure};
use crate::state::{Chain, Snapshot};

type Answer = Result<Value, RpcFailure>;

/// A miner's state at the tipset that a request names.
struct View<'a> {
    chain: &'a Chain,
    snapshot: &'a Snapshot,
    state: State,
    epoch: i64,
}

pub fn call(chain: &Chain, name: &str, params: &Params) -> Option<Answer> {
    let tipset_position = match name {
        "StateMinerInfo"
        | "StateMinerActiveSectors"
        | "StateMinerSectorCount"
        | "StateMinerFaults"
        | "StateMinerRecoveries"
        | "StateMinerDeadlines"
        | "StateMinerProvingDeadline"
        | "StateMinerAvailableBalance"
        | "StateMinerAllocated" => 1,
        "StateMinerSectors"
        | "StateMinerPartitions"
        | "StateSectorGetInfo"
        | "StateSectorPreCommitInfo"
        | "StateSectorPartition"
        | "StateSectorExpiration" => 2,
        _ => return None,
    };
    Some(view(chain, params, tipset_position).and_then(|view| view.answer(name, params)))
}

fn view<'a>(chain: &'a Chain, params: &Params, position: usize) -> Result<View<'a>, RpcFailure> {
    params.miner(chain, 0)?;
    let snapshot = params.state(chain, position)?;
    Ok(View {
        chain,
        snapshot,
        state: chain.miner_at(snapshot)?,
        epoch: params.epoch(chain, position)?,
    })
}

impl View<'_> {
    fn answer(&self, name: &str, params: &Params) -> Answer {
        match name {
            "StateMinerInfo" => self.info(),
            "StateMinerActiveSectors" => {
                self.sectors(Some(&self.collect(Partition::active_sectors)?))
            }
            "StateMinerSectors" => {
                let filter: Option<BitFieldJson> = params.get(1)?;
                let numbers = filter.and_then(|f| f.numbers(1 << 20));
                let bits = numbers.map(BitField::try_from_bits).transpose();
                self.sectors(
                    bits.map_err(|error| RpcFailure::new(-32602, error.to_string()))?
                        .as_ref(),
                )
            }
            "StateMinerSectorCount" => self.count(),
            "StateMinerFaults" => self.bits(|p| p.faults.clone()),
            "StateMinerRecoveries" => self.bits(|p| p.recoveries.clone()),
            "StateMinerDeadlines" => self.deadlines(),
            "StateMinerPartitions" => self.partitions(params.get(1)?),
            "StateMinerProvingDeadline" => self.proving_deadline(),
            "StateMinerAvailableBalance" => self.available_balance(),
            "StateMinerAllocated" => self.allocated(),
            "StateSectorGetInfo" => Ok(serde_json::to_value(
                self.sector(params.get(1)?)?.map(|s| sector_json(&s)),
            )?),
            "StateSectorPreCommitInfo" => self.pre_commit(params.get(1)?),
            "StateSectorPartition" => self.location(params.get(1)?),
            _ => self.expiration(params.get(1)?),
        }
    }

    fn info(&self) -> Answer {
        let info = self.state.get_info(&self.chain.blocks)?;
        let control: Vec<String> = info
            .control_addresses
            .iter()
            .map(ToString::to_string)
            .collect();
        let term = json!({"Quota": "0", "UsedQuota": "0", "Expiration": 0});
        let rest = json!({
            "NewWorker": "f0",
            "ControlAddresses": control,
            "WorkerChangeEpoch": -1,
            "PeerId": null,
            "Multiaddrs": [],
            "PendingOwnerAddress": null,
            "BeneficiaryTerm": term,
            "PendingBeneficiaryTerm": null,
        });
        let view = rpc::MinerInfo {
            owner: info.owner,
            worker: info.worker,
            beneficiary: info.beneficiary,
            window_po_st_proof_type: i64::from(info.window_post_proof_type),
            sector_size: self.chain.config.sector_size,
            window_post_partition_sectors: info.window_post_partition_sectors,
            consensus_fault_elapsed: info.consensus_fault_elapsed,
            rest: rest.as_object().cloned().unwrap_or_default(),
        };
        Ok(serde_json::to_value(view)?)
    }

    fn loaded_deadlines(&self) -> Result<Deadlines, RpcFailure> {
        Ok(self.state.load_deadlines(&self.chain.blocks)?)
    }

    fn each_partition(&self, mut f: impl FnMut(&Partition)) -> Result<(), RpcFailure> {
        self.loaded_deadlines()?
            .for_each(&self.chain.blocks, |_, deadline| {
                deadline.for_each(&self.chain.blocks, |_, partition| {
                    f(partition);
                    Ok(())
                })
            })?;
        Ok(())
    }

    fn collect(&self, of: impl Fn(&Partition) -> BitField) -> Result<BitField, RpcFailure> {
        let mut parts = Vec::new();
        self.each_partition(|partition| parts.push(of(partition)))?;
        Ok(BitField::union(&parts))
    }

    fn bits(&self, of: impl Fn(&Partition) -> BitField) -> Answer {
        Ok(serde_json::to_value(BitFieldJson::from(
            &self.collect(of)?,
        ))?)
    }

    fn count(&self) -> Answer {
        let mut count = SectorCount {
            live: 0,
            active: 0,
            faulty: 0,
        };
        self.each_partition(|partition| {
            count.live += partition.live_sectors().len();
            count.active += partition.active_sectors().len();
            count.faulty += partition.faults.len();
        })?;
        Ok(serde_json::to_value(count)?)
    }

    fn sectors(&self, filter: Option<&BitField>) -> Answer {
        let mut list = Vec::new();
        self.state.for_each_sector(&self.chain.blocks, |sector| {
            if filter.is_none_or(|bits| bits.get(sector.sector_number)) {
                list.push(sector_json(sector));
            }
            Ok(())
        })?;
        Ok(serde_json::to_value(list)?)
    }

    fn sector(&self, number: u64) -> Result<Option<SectorOnChainInfo>, RpcFailure> {
        Ok(self.state.get_sector(&self.chain.blocks, number)?)
    }

    fn deadlines(&self) -> Answer {
        let mut list = Vec::new();
        self.loaded_deadlines()?
            .for_each(&self.chain.blocks, |_, deadline| {
                list.push(DeadlineState {
                    post_submissions: BitFieldJson::from(&deadline.partitions_posted),
                    disputable_proof_count: deadline
                        .optimistic_proofs_snapshot_amt(&self.chain.blocks)?
                        .count(),
                    daily_fee: deadline.daily_fee,
                });
                Ok(())
            })?;
        Ok(serde_json::to_value(list)?)
    }

    fn partitions(&self, index: u64) -> Answer {
        let deadline: Deadline = self
            .loaded_deadlines()?
            .load_deadline(&self.chain.blocks, index)?;
        let mut list = Vec::new();
        deadline.for_each(&self.chain.blocks, |_, partition| {
            list.push(rpc::Partition {
                all_sectors: BitFieldJson::from(&partition.sectors),
                faulty_sectors: BitFieldJson::from(&partition.faults),
                recovering_sectors: BitFieldJson::from(&partition.recoveries),
                live_sectors: BitFieldJson::from(&partition.live_sectors()),
                active_sectors: BitFieldJson::from(&partition.active_sectors()),
            });
            Ok(())
        })?;
        Ok(serde_json::to_value(list)?)
    }

    fn proving_deadline(&self) -> Answer {
        let info = self.state.deadline_info(&self.chain.policy, self.epoch);
        let view: ProvingDeadline = serde_json::from_value(serde_json::to_value(info)?)?;
        Ok(serde_json::to_value(view)?)
    }

    /// Includes funds that have vested but are not unlocked yet, as in Lotus.
    fn available_balance(&self) -> Answer {
        let vested = self
            .state
            .check_vested_funds(&self.chain.blocks, self.epoch)?;
        let available = self
            .state
            .get_available_balance(&self.snapshot.miner_balance)?;
        Ok(json!((available + vested).atto().to_string()))
    }

    fn allocated(&self) -> Answer {
        use fvm_ipld_encoding::CborStore;
        let bits: Option<BitField> = self.chain.blocks.get_cbor(&self.state.allocated_sectors)?;
        Ok(serde_json::to_value(BitFieldJson::from(
            &bits.unwrap_or_default(),
        ))?)
    }

    fn pre_commit(&self, number: u64) -> Answer {
        let found = self
            .state
            .get_precommitted_sector(&self.chain.blocks, number)?;
        let found = found.ok_or_else(|| {
            RpcFailure::new(1, format!("precommit info for sector {number} not found"))
        })?;
        let info = json!({
            "SealProof": i64::from(found.info.seal_proof),
            "SectorNumber": number,
            "SealedCID": {"/": found.info.sealed_cid.to_string()},
            "SealRandEpoch": found.info.seal_rand_epoch,
            "DealIDs": [],
            "Expiration": found.info.expiration,
            "UnsealedCid": null,
        });
        let info = serde_json::from_value(info)?;
        let view = PreCommitInfo {
            pre_commit_deposit: found.pre_commit_deposit,
            pre_commit_epoch: found.pre_commit_epoch,
            info,
        };
        Ok(serde_json::to_value(view)?)
    }

    fn find(&self, number: u64) -> Result<(u64, u64), RpcFailure> {
        Ok(self
            .loaded_deadlines()?
            .find_sector(&self.chain.blocks, number)?)
    }

    fn location(&self, number: u64) -> Answer {
        let (deadline, partition) = self.find(number)?;
        Ok(serde_json::to_value(SectorLocation {
            deadline,
            partition,
        })?)
    }

    /// On time: the last epoch of the sector's own deadline at or after its committed expiration.
    fn expiration(&self, number: u64) -> Answer {
        let sector = self
            .sector(number)?
            .ok_or_else(|| RpcFailure::new(1, format!("sector {number} not found")))?;
        let (deadline, _) = self.find(number)?;
        let on_time = self
            .state
            .quant_spec_for_deadline(&self.chain.policy, deadline)
            .quantize_up(sector.expiration);
        Ok(serde_json::to_value(SectorExpiration {
            on_time,
            early: 0,
        })?)
    }
}

fn sector_json(sector: &SectorOnChainInfo) -> SectorInfo {
    SectorInfo {
        sector_number: sector.sector_number,
        seal_proof: i64::from(sector.seal_proof),
        sealed_cid: sector.sealed_cid.into(),
        deal_ids: Vec::new(),
        activation: sector.activation,
        expiration: sector.expiration,
        deal_weight: sector.deal_weight.clone(),
        verified_deal_weight: sector.verified_deal_weight.clone(),
        initial_pledge: sector.initial_pledge.clone(),
        power_base_epoch: sector.power_base_epoch,
        sector_key_cid: sector.sector_key_cid.map(Into::into),
        flags: u64::from(sector.flags.bits()),
        daily_fee: sector.daily_fee.clone(),
        expected_day_reward: None,
        expected_storage_pledge: None,
        replaced_day_reward: None,
    }
}
