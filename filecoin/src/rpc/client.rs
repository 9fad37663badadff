//! The client: Lotus' methods by name. Every call is safe to repeat: a push carries a `MsgUuid`, a
//! replacement its nonce.

use base64::{Engine, prelude::BASE64_STANDARD};
use fvm_shared::{address::Address, econ::TokenAmount};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    transport::{Freshness, HeadHealth, NodeConfig, RpcError, Transport},
    types::*,
};
use crate::{actor::RandomnessTag, economics::NetworkEstimate, hash::Hash32};

/// The nodes of one network. Share it by reference.
pub struct Node {
    transport: Transport,
}

impl Node {
    pub fn new(config: NodeConfig) -> Result<Self, RpcError> {
        Ok(Self {
            transport: Transport::new(config)?,
        })
    }

    #[must_use]
    pub fn url(&self) -> &str {
        self.transport.url()
    }

    /// Whether the node to be asked next is the first one in the configuration.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.transport
            .order()
            .is_ok_and(|order| order.first() == Some(&0))
    }

    /// Calls a reading method by its full name.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        params: Value,
    ) -> Result<T, RpcError> {
        self.transport.read(method, &params).await
    }

    /// Checks every node's head. Nodes that are behind are not used until they have caught up.
    pub async fn look_at_heads(&self, freshness: Freshness) -> Vec<HeadHealth> {
        self.transport.look_at_heads(freshness).await
    }

    pub async fn version(&self) -> Result<Version, RpcError> {
        self.call("Filecoin.Version", json!([])).await
    }

    pub async fn network_name(&self) -> Result<String, RpcError> {
        self.call("Filecoin.StateNetworkName", json!([])).await
    }

    pub async fn network_version(&self, tsk: &TipSetKey) -> Result<u32, RpcError> {
        self.call("Filecoin.StateNetworkVersion", json!([tsk]))
            .await
    }

    pub async fn network_params(&self) -> Result<NetworkParams, RpcError> {
        self.call("Filecoin.StateGetNetworkParams", json!([])).await
    }

    pub async fn chain_head(&self) -> Result<TipSet, RpcError> {
        self.tipset("Filecoin.ChainHead", json!([])).await
    }

    /// The height of the newest tipset that the node considers final (F3, or else EC's 900 epochs).
    /// `None` if the node does not say.
    pub async fn finalized(&self) -> Result<Option<i64>, RpcError> {
        match self
            .tipset("Filecoin.ChainGetFinalizedTipSet", json!([]))
            .await
        {
            Err(RpcError::Node { .. } | RpcError::Malformed { .. }) => Ok(None),
            other => Ok(Some(other?.height)),
        }
    }

    pub async fn genesis(&self) -> Result<TipSet, RpcError> {
        self.tipset("Filecoin.ChainGetGenesis", json!([])).await
    }

    /// The tipset at `epoch`, or the last one before it if that round was null.
    pub async fn tipset_by_height(&self, epoch: i64) -> Result<TipSet, RpcError> {
        let method = "Filecoin.ChainGetTipSetByHeight";
        let tipset = self.tipset(method, json!([epoch, null])).await?;
        if tipset.height > epoch {
            let reason = format!("a tipset of epoch {} for one of {epoch}", tipset.height);
            return Err(RpcError::Malformed {
                method: method.to_owned(),
                reason,
            });
        }
        Ok(tipset)
    }

    async fn tipset(&self, method: &str, params: Value) -> Result<TipSet, RpcError> {
        let tipset: TipSet = self.call(method, params).await?;
        match tipset.fault() {
            Some(fault) => Err(RpcError::Malformed {
                method: method.to_owned(),
                reason: fault.to_owned(),
            }),
            None => Ok(tipset),
        }
    }

    pub async fn message(&self, cid: &str) -> Result<Message, RpcError> {
        self.call("Filecoin.ChainGetMessage", json!([{"/": cid}]))
            .await
    }

    pub async fn block_messages(&self, block: &super::CidJson) -> Result<BlockMessages, RpcError> {
        self.call("Filecoin.ChainGetBlockMessages", json!([block]))
            .await
    }

    pub async fn miner_info(&self, miner: &Address) -> Result<MinerInfo, RpcError> {
        self.call("Filecoin.StateMinerInfo", json!([miner.to_string(), null]))
            .await
    }

    pub async fn miner_power(
        &self,
        miner: &Address,
        tsk: &TipSetKey,
    ) -> Result<MinerPower, RpcError> {
        self.call("Filecoin.StateMinerPower", json!([miner.to_string(), tsk]))
            .await
    }

    /// The sectors with these `numbers`, whether active or not. Each must exist.
    pub async fn sectors(
        &self,
        miner: &Address,
        numbers: &super::BitFieldJson,
        tsk: &TipSetKey,
    ) -> Result<Vec<SectorInfo>, RpcError> {
        let sectors: Option<_> = self
            .call(
                "Filecoin.StateMinerSectors",
                json!([miner.to_string(), numbers, tsk]),
            )
            .await?;
        Ok(sectors.unwrap_or_default())
    }

    pub async fn sector_info(
        &self,
        miner: &Address,
        number: u64,
        tsk: &TipSetKey,
    ) -> Result<Option<SectorInfo>, RpcError> {
        self.call(
            "Filecoin.StateSectorGetInfo",
            json!([miner.to_string(), number, tsk]),
        )
        .await
    }

    /// `None` if the sector is not pre-committed (a node may also answer with an error).
    pub async fn pre_commit_info(
        &self,
        miner: &Address,
        number: u64,
        tsk: &TipSetKey,
    ) -> Result<Option<PreCommitInfo>, RpcError> {
        match self
            .call(
                "Filecoin.StateSectorPreCommitInfo",
                json!([miner.to_string(), number, tsk]),
            )
            .await
        {
            Err(RpcError::Node { message, .. }) if message.contains("not found") => Ok(None),
            other => other,
        }
    }

    pub async fn sector_location(
        &self,
        miner: &Address,
        number: u64,
        tsk: &TipSetKey,
    ) -> Result<Option<SectorLocation>, RpcError> {
        match self
            .call(
                "Filecoin.StateSectorPartition",
                json!([miner.to_string(), number, tsk]),
            )
            .await
        {
            Err(RpcError::Node { .. }) => Ok(None),
            other => other,
        }
    }

    pub async fn sector_expiration(
        &self,
        miner: &Address,
        number: u64,
    ) -> Result<SectorExpiration, RpcError> {
        self.call(
            "Filecoin.StateSectorExpiration",
            json!([miner.to_string(), number, null]),
        )
        .await
    }

    pub async fn proving_deadline(&self, miner: &Address) -> Result<ProvingDeadline, RpcError> {
        self.call(
            "Filecoin.StateMinerProvingDeadline",
            json!([miner.to_string(), null]),
        )
        .await
    }

    pub async fn deadlines(
        &self,
        miner: &Address,
        tsk: &TipSetKey,
    ) -> Result<Vec<DeadlineState>, RpcError> {
        self.call(
            "Filecoin.StateMinerDeadlines",
            json!([miner.to_string(), tsk]),
        )
        .await
    }

    pub async fn partitions(
        &self,
        miner: &Address,
        deadline: u64,
        tsk: &TipSetKey,
    ) -> Result<Vec<Partition>, RpcError> {
        let list: Option<_> = self
            .call(
                "Filecoin.StateMinerPartitions",
                json!([miner.to_string(), deadline, tsk]),
            )
            .await?;
        Ok(list.unwrap_or_default())
    }

    /// Sectors that count as faulty.
    pub async fn faults(&self, miner: &Address) -> Result<super::BitFieldJson, RpcError> {
        self.call(
            "Filecoin.StateMinerFaults",
            json!([miner.to_string(), null]),
        )
        .await
    }

    /// Faulty sectors that were declared recovered and must be proven next.
    pub async fn recoveries(&self, miner: &Address) -> Result<super::BitFieldJson, RpcError> {
        self.call(
            "Filecoin.StateMinerRecoveries",
            json!([miner.to_string(), null]),
        )
        .await
    }

    /// All sector numbers that were ever allocated.
    pub async fn allocated_sectors(
        &self,
        miner: &Address,
        tsk: &TipSetKey,
    ) -> Result<super::BitFieldJson, RpcError> {
        self.call(
            "Filecoin.StateMinerAllocated",
            json!([miner.to_string(), tsk]),
        )
        .await
    }

    pub async fn available_balance(
        &self,
        miner: &Address,
        tsk: &TipSetKey,
    ) -> Result<TokenAmount, RpcError> {
        let Atto(amount) = self
            .call(
                "Filecoin.StateMinerAvailableBalance",
                json!([miner.to_string(), tsk]),
            )
            .await?;
        Ok(amount)
    }

    pub async fn circulating_supply(&self) -> Result<CirculatingSupply, RpcError> {
        self.call("Filecoin.StateVMCirculatingSupplyInternal", json!([null]))
            .await
    }

    pub async fn reward_state(&self, tsk: &TipSetKey) -> Result<ActorState<RewardState>, RpcError> {
        self.call("Filecoin.StateReadState", json!(["f02", tsk]))
            .await
    }

    pub async fn power_state(&self, tsk: &TipSetKey) -> Result<ActorState<PowerState>, RpcError> {
        self.call("Filecoin.StateReadState", json!(["f04", tsk]))
            .await
    }

    /// Inputs for pledge, fees and rewards, as of a tipset.
    pub async fn network_estimate(&self, head: &TipSet) -> Result<NetworkEstimate, RpcError> {
        let (reward, power) = (
            self.reward_state(&head.cids).await?.state,
            self.power_state(&head.cids).await?.state,
        );
        Ok(NetworkEstimate {
            reward: reward.this_epoch_reward_smoothed.into(),
            power: power.this_epoch_qa_power_smoothed.into(),
            baseline: reward.this_epoch_baseline_power,
            circulating: self.circulating_supply().await?.fil_circulating,
            ramp_start: power.ramp_start_epoch,
            ramp_epochs: power.ramp_duration_epochs,
            epoch: head.height,
        })
    }

    pub async fn miner_state(
        &self,
        miner: &Address,
        tsk: &TipSetKey,
    ) -> Result<ActorState<MinerState>, RpcError> {
        self.call("Filecoin.StateReadState", json!([miner.to_string(), tsk]))
            .await
    }

    pub async fn randomness_from_tickets(
        &self,
        tag: RandomnessTag,
        epoch: i64,
        entropy: &[u8],
    ) -> Result<Hash32, RpcError> {
        self.randomness(
            "Filecoin.StateGetRandomnessFromTickets",
            tag,
            epoch,
            entropy,
        )
        .await
    }

    pub async fn randomness_from_beacon(
        &self,
        tag: RandomnessTag,
        epoch: i64,
        entropy: &[u8],
    ) -> Result<Hash32, RpcError> {
        self.randomness("Filecoin.StateGetRandomnessFromBeacon", tag, epoch, entropy)
            .await
    }

    async fn randomness(
        &self,
        method: &str,
        tag: RandomnessTag,
        epoch: i64,
        entropy: &[u8],
    ) -> Result<Hash32, RpcError> {
        let entropy = (!entropy.is_empty()).then(|| BASE64_STANDARD.encode(entropy));
        let text: String = self
            .call(method, json!([tag.number(), epoch, entropy, null]))
            .await?;
        let malformed = |reason: String| RpcError::Malformed {
            method: method.to_owned(),
            reason,
        };
        let bytes = BASE64_STANDARD
            .decode(text)
            .map_err(|error| malformed(error.to_string()))?;
        Hash32::from_slice(&bytes).map_err(|error| malformed(error.to_string()))
    }

    /// Has a node sign and send a message. A repeated call with the same `uuid` at the same node
    /// returns the message that was sent first. The caller must compare it with this one, because
    /// the node compares only the UUID.
    pub async fn push(
        &self,
        message: &Message,
        spec: &MessageSendSpec,
    ) -> Result<SignedMessage, RpcError> {
        let at = self.sender(&message.from).await?;
        self.transport
            .ask(at, "Filecoin.MpoolPushMessage", &json!([message, spec]))
            .await
    }

    /// The node that sends for an address: the best usable one. The first of the configuration is
    /// taken unchecked; others must hold the key.
    async fn sender(&self, from: &Address) -> Result<usize, RpcError> {
        for at in self.transport.order()? {
            let has = self
                .transport
                .ask::<bool>(at, "Filecoin.WalletHas", &json!([from.to_string()]))
                .await;
            if at == 0 || matches!(has, Ok(true)) {
                return Ok(at);
            }
        }
        Err(RpcError::Stale(format!(
            "no healthy node holds the key of {from}"
        )))
    }

    /// Whether the node in use holds an address's key, so that it can send.
    pub async fn wallet_has(&self, address: &Address) -> Result<bool, RpcError> {
        self.call("Filecoin.WalletHas", json!([address.to_string()]))
            .await
    }

    /// The key address, as signed messages name it.
    pub async fn account_key(&self, address: &Address) -> Result<Address, RpcError> {
        let Key(key) = self
            .call(
                "Filecoin.StateAccountKey",
                json!([address.to_string(), null]),
            )
            .await?;
        Ok(key)
    }

    /// Messages that wait for inclusion.
    pub async fn mempool(&self) -> Result<Vec<SignedMessage>, RpcError> {
        let pending: Option<_> = self.call("Filecoin.MpoolPending", json!([null])).await?;
        Ok(pending.unwrap_or_default())
    }

    /// The message with the gas limit, fee cap and premium that the node would set now.
    pub async fn estimate_gas(
        &self,
        message: &Message,
        spec: &MessageSendSpec,
    ) -> Result<Message, RpcError> {
        self.call(
            "Filecoin.GasEstimateMessageGas",
            json!([message, spec, null]),
        )
        .await
    }

    /// Signs and sends a message with a nonce of the caller's choice, to replace one that does not
    /// land.
    pub async fn replace(&self, message: &Message) -> Result<SignedMessage, RpcError> {
        let at = self.sender(&message.from).await?;
        let params = json!([message.from.to_string(), message]);
        let mut signed: SignedMessage = self
            .transport
            .ask(at, "Filecoin.WalletSignMessage", &params)
            .await?;
        signed.cid = self
            .transport
            .ask(at, "Filecoin.MpoolPush", &json!([signed]))
            .await?;
        Ok(signed)
    }

    /// The receipt of a message, searched back `lookback` epochs; or that of the message that
    /// replaced it: the answer's `message` says which.
    pub async fn search_message(
        &self,
        cid: &str,
        lookback: i64,
    ) -> Result<Option<MsgLookup>, RpcError> {
        self.call(
            "Filecoin.StateSearchMsg",
            json!([null, {"/": cid}, lookback, true]),
        )
        .await
    }

    pub async fn wallet_balance(&self, address: &Address) -> Result<TokenAmount, RpcError> {
        let Atto(amount) = self
            .call("Filecoin.WalletBalance", json!([address.to_string()]))
            .await?;
        Ok(amount)
    }
}

#[derive(Deserialize)]
struct Atto(#[serde(with = "atto")] TokenAmount);

#[derive(Deserialize)]
struct Key(#[serde(with = "address")] Address);
