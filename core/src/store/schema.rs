//! The tables as diesel sees them, the same for both databases. `docs/ARCHITECTURE.md` and the
//! migrations explain the columns.

diesel::table! {
    users (id) {
        id -> BigInt,
        public_id -> Text,
        email -> Text,
        name -> Text,
        password_hash -> Text,
        role -> Text,
        created_at -> BigInt,
    }
}

diesel::table! {
    sessions (id) {
        id -> Text,
        user_id -> BigInt,
        created_at -> BigInt,
        expires_at -> BigInt,
        revoked_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    audit_log (id) {
        id -> BigInt,
        at -> BigInt,
        user_id -> Nullable<BigInt>,
        action -> Text,
        subject -> Text,
        detail -> Text,
    }
}

diesel::table! {
    pools (id) {
        id -> BigInt,
        public_id -> Text,
        name -> Text,
        miner -> Text,
        miner_id -> BigInt,
        sector_bytes -> BigInt,
        next_sector -> BigInt,
        created_at -> BigInt,
        collateral_sectors -> Nullable<BigInt>,
        pledge_nano -> Nullable<BigInt>,
    }
}

diesel::table! {
    plans (id) {
        id -> BigInt,
        public_id -> Text,
        pool_id -> BigInt,
        name -> Text,
        unit_bytes -> BigInt,
        max_units -> BigInt,
        days -> BigInt,
        price_minor -> BigInt,
        currency -> Text,
        on_sale -> Bool,
        created_at -> BigInt,
        terms -> Text,
    }
}

diesel::table! {
    orders (id) {
        id -> BigInt,
        public_id -> Text,
        user_id -> BigInt,
        plan_id -> BigInt,
        pool_id -> BigInt,
        units -> BigInt,
        bytes -> BigInt,
        amount_minor -> BigInt,
        currency -> Text,
        terms -> Text,
        state -> Text,
        request_key -> Text,
        promised_at -> BigInt,
        created_at -> BigInt,
        expires_at -> BigInt,
        paid_at -> Nullable<BigInt>,
        pledge_each_nano -> BigInt,
        refunded_at -> Nullable<BigInt>,
        computed_at -> BigInt,
        paying_since -> Nullable<BigInt>,
        cancelled_at -> Nullable<BigInt>,
        checkout_attempts -> BigInt,
    }
}

diesel::table! {
    promises (order_id) {
        order_id -> BigInt,
        pool_id -> BigInt,
        sectors -> BigInt,
        ahead -> BigInt,
        why -> Text,
        made_at -> BigInt,
        p50_at -> BigInt,
        promised_at -> BigInt,
        forecast_at -> BigInt,
        forecast_why -> Text,
        met_at -> Nullable<BigInt>,
        kept -> Nullable<Bool>,
        moved_from -> Nullable<BigInt>,
    }
}

diesel::table! {
    promise_lessons (pool_id) {
        pool_id -> BigInt,
        shift -> BigInt,
        stretch -> BigInt,
        outcomes -> BigInt,
    }
}

diesel::table! {
    payments (id) {
        id -> BigInt,
        order_id -> BigInt,
        rail -> Text,
        rail_ref -> Text,
        pay_url -> Text,
        state -> Text,
        created_at -> BigInt,
        paid_at -> Nullable<BigInt>,
        intent -> Nullable<Text>,
    }
}

diesel::table! {
    attempts (key) {
        key -> Text,
        window_end -> BigInt,
        count -> BigInt,
    }
}

diesel::table! {
    webhook_events (id) {
        id -> Text,
        rail -> Text,
        kind -> Text,
        raw -> Text,
        received_at -> BigInt,
        fate -> Text,
        note -> Text,
    }
}

diesel::table! {
    contracts (id) {
        id -> BigInt,
        public_id -> Text,
        user_id -> BigInt,
        order_id -> BigInt,
        pool_id -> BigInt,
        bytes -> BigInt,
        days -> BigInt,
        fee_bp -> BigInt,
        state -> Text,
        promised_at -> BigInt,
        created_at -> BigInt,
        active_at -> Nullable<BigInt>,
        terms_id -> BigInt,
        pledge_each_nano -> BigInt,
        ends_at -> Nullable<BigInt>,
        added_epochs -> BigInt,
    }
}

diesel::table! {
    machines (id) {
        id -> BigInt,
        public_id -> Text,
        name -> Text,
        state -> Text,
        key_hash -> Text,
        cores -> BigInt,
        memory_bytes -> BigInt,
        disk_bytes -> BigInt,
        disk_free_bytes -> BigInt,
        gpus -> BigInt,
        detail -> Text,
        enrolled_at -> BigInt,
        seen_at -> BigInt,
        lost_since -> Nullable<BigInt>,
        files_url -> Nullable<Text>,
        keeps -> BigInt,
        revoked_at -> Nullable<BigInt>,
        removed_at -> Nullable<BigInt>,
        files_host -> Nullable<Text>,
    }
}

diesel::table! {
    drawings (sector_id) {
        sector_id -> BigInt,
        machine_id -> BigInt,
        begins_at -> BigInt,
    }
}

diesel::table! {
    listening (id) {
        id -> BigInt,
        since -> BigInt,
        heard_at -> BigInt,
        looking_since -> BigInt,
        looked_at -> BigInt,
    }
}

diesel::table! {
    enrolment_tokens (token_hash) {
        token_hash -> Text,
        name -> Text,
        created_at -> BigInt,
        expires_at -> BigInt,
        used_at -> Nullable<BigInt>,
        machine_id -> Nullable<BigInt>,
        for_machine -> Nullable<BigInt>,
        withdrawn_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    sectors (id) {
        id -> BigInt,
        pool_id -> BigInt,
        number -> BigInt,
        contract_id -> BigInt,
        machine_id -> Nullable<BigInt>,
        seal_proof -> BigInt,
        state -> Text,
        due_at -> BigInt,
        ticket -> Nullable<Text>,
        ticket_epoch -> Nullable<BigInt>,
        seed -> Nullable<Text>,
        seed_epoch -> Nullable<BigInt>,
        comm_d -> Nullable<Text>,
        comm_r -> Nullable<Text>,
        pc2_output -> Nullable<Text>,
        porep_proof -> Nullable<Binary>,
        expiration -> BigInt,
        activation -> Nullable<BigInt>,
        deadline -> Nullable<BigInt>,
        partition -> Nullable<BigInt>,
        failures -> BigInt,
        reason -> Nullable<Text>,
        created_at -> BigInt,
        changed_at -> BigInt,
    }
}

diesel::table! {
    tasks (id) {
        id -> BigInt,
        kind -> Text,
        sector_id -> Nullable<BigInt>,
        post_id -> Nullable<BigInt>,
        pool_id -> BigInt,
        state -> Text,
        pinned_to -> Nullable<BigInt>,
        avoid -> Nullable<BigInt>,
        input -> Text,
        output -> Nullable<Binary>,
        machine_id -> Nullable<BigInt>,
        fence -> BigInt,
        lease_until -> Nullable<BigInt>,
        progress -> Nullable<Text>,
        attempts -> BigInt,
        due_at -> BigInt,
        failure_level -> Nullable<Text>,
        failure -> Nullable<Text>,
        wall_ms -> Nullable<BigInt>,
        cpu_ms -> Nullable<BigInt>,
        peak_bytes -> Nullable<BigInt>,
        created_at -> BigInt,
        done_at -> Nullable<BigInt>,
        started_at -> Nullable<BigInt>,
        seen_at -> Nullable<BigInt>,
        source_machine -> Nullable<BigInt>,
    }
}

diesel::table! {
    window_posts (id) {
        id -> BigInt,
        pool_id -> BigInt,
        deadline -> BigInt,
        partition -> BigInt,
        open_epoch -> BigInt,
        close_epoch -> BigInt,
        challenge_epoch -> BigInt,
        randomness -> Text,
        sectors -> Text,
        skipped -> Text,
        state -> Text,
        proof -> Nullable<Binary>,
        message_id -> Nullable<BigInt>,
        created_at -> BigInt,
    }
}

diesel::table! {
    messages (id) {
        id -> BigInt,
        uuid -> Text,
        pool_id -> BigInt,
        purpose -> Text,
        subject_id -> BigInt,
        method -> BigInt,
        params -> Binary,
        state -> Text,
        cid -> Nullable<Text>,
        epoch -> Nullable<BigInt>,
        exit_code -> Nullable<BigInt>,
        gas_used -> Nullable<BigInt>,
        last_error -> Nullable<Text>,
        created_at -> BigInt,
        changed_at -> BigInt,
        burnt_atto -> Nullable<Text>,
        tip_atto -> Nullable<Text>,
        attempt -> BigInt,
        sender -> Nullable<Text>,
        nonce -> Nullable<BigInt>,
        fee_cap_atto -> Nullable<Text>,
        premium_atto -> Nullable<Text>,
        tried_at -> Nullable<BigInt>,
        adopted_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    installation (id) {
        id -> BigInt,
        secret -> Text,
    }
}

diesel::table! {
    alerts (kind, subject) {
        kind -> Text,
        subject -> Text,
        text -> Text,
        since -> BigInt,
    }
}

diesel::table! {
    chain_cursors (pool_id) {
        pool_id -> BigInt,
        genesis_at -> BigInt,
        epoch_seconds -> BigInt,
        next_epoch -> BigInt,
        head_epoch -> BigInt,
        last_cid -> Text,
        network -> Text,
        full_quality_after -> Nullable<BigInt>,
    }
}

diesel::table! {
    block_wins (pool_id, epoch) {
        pool_id -> BigInt,
        epoch -> BigInt,
        cid -> Text,
        win_count -> BigInt,
        reward_atto -> Text,
        tips_atto -> Text,
    }
}

diesel::table! {
    sector_intervals (id) {
        id -> BigInt,
        pool_id -> BigInt,
        number -> BigInt,
        contract_id -> Nullable<BigInt>,
        start_epoch -> BigInt,
        end_epoch -> Nullable<BigInt>,
        qa_power -> BigInt,
        pledge_atto -> Text,
        daily_fee_atto -> Text,
    }
}

diesel::table! {
    chain_days (pool_id, day) {
        pool_id -> BigInt,
        day -> BigInt,
        at_epoch -> BigInt,
        network_version -> BigInt,
        reward_atto -> Text,
        daily_fee_atto -> Text,
        other_atto -> Text,
        balance_atto -> Text,
        locked_atto -> Text,
        deposits_atto -> Text,
        pledge_atto -> Text,
        fee_debt_atto -> Text,
        available_atto -> Text,
        raw_power -> Text,
        qa_power -> Text,
        fault_fee_atto -> Text,
        termination_fee_atto -> Text,
        deposits_in_atto -> Text,
        deposits_back_atto -> Text,
        deposits_lost_atto -> Text,
        pledge_in_atto -> Text,
        pledge_back_atto -> Text,
        locked_in_atto -> Text,
        unlocked_atto -> Text,
    }
}

diesel::table! {
    corrections (transfer_id) {
        transfer_id -> Text,
        corrects -> Text,
        reason -> Text,
        made_by -> BigInt,
        made_at -> BigInt,
    }
}

diesel::table! {
    chain_flows (pool_id, kind, subject, epoch) {
        pool_id -> BigInt,
        kind -> Text,
        subject -> BigInt,
        epoch -> BigInt,
        atto -> Text,
    }
}

diesel::table! {
    pool_days (pool_id, day) {
        pool_id -> BigInt,
        day -> BigInt,
        first_epoch -> BigInt,
        end_epoch -> BigInt,
        wins -> BigInt,
        reward_atto -> Text,
        posted_nano -> BigInt,
        carry_atto -> BigInt,
        power_epochs -> Text,
        closed_at -> BigInt,
        daily_fee_nano -> BigInt,
        fault_fee_nano -> BigInt,
        gas_nano -> BigInt,
    }
}

diesel::table! {
    yield_lots (pool_id, day, contract_id) {
        pool_id -> BigInt,
        day -> BigInt,
        contract_id -> BigInt,
        power_epochs -> Text,
        missing_epochs -> Text,
        gross_nano -> BigInt,
        fee_nano -> BigInt,
        cost_nano -> BigInt,
        available_nano -> BigInt,
        locked_nano -> BigInt,
        released_nano -> BigInt,
        rate_nano -> BigInt,
        vesting_nano -> BigInt,
        compensation_nano -> BigInt,
        added_epochs -> BigInt,
        missing_power -> Text,
    }
}

diesel::table! {
    ledger_accounts (id) {
        id -> BigInt,
        code -> Text,
        asset -> Text,
        user_id -> Nullable<BigInt>,
        pool_id -> Nullable<BigInt>,
        never_negative -> Bool,
        posted_in -> BigInt,
        posted_out -> BigInt,
        pending_in -> BigInt,
        pending_out -> BigInt,
        created_at -> BigInt,
    }
}

diesel::table! {
    ledger_transfers (id) {
        id -> Text,
        from_account -> BigInt,
        to_account -> BigInt,
        amount -> BigInt,
        phase -> Text,
        pending_id -> Nullable<Text>,
        kind -> Text,
        subject -> Text,
        effective_day -> BigInt,
        booked_at -> BigInt,
    }
}

diesel::table! {
    statements (id) {
        id -> BigInt,
        public_id -> Text,
        user_id -> BigInt,
        month -> Text,
        model -> Text,
        message_id -> Text,
        created_at -> BigInt,
        sent_at -> Nullable<BigInt>,
        refused_at -> Nullable<BigInt>,
        refusal -> Nullable<Text>,
    }
}

diesel::table! {
    jobs (id) {
        id -> BigInt,
        kind -> Text,
        unique_key -> Text,
        payload -> Text,
        state -> Text,
        attempts -> BigInt,
        run_after -> BigInt,
        locked_until -> Nullable<BigInt>,
        last_error -> Nullable<Text>,
        created_at -> BigInt,
    }
}

diesel::table! {
    claims (name) {
        name -> Text,
        holder -> Text,
        held_until -> BigInt,
        failing_since -> Nullable<BigInt>,
        last_error -> Nullable<Text>,
    }
}

diesel::table! {
    outages (id) {
        id -> BigInt,
        machine_id -> BigInt,
        lost_at -> BigInt,
        back_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    terms (id) {
        id -> BigInt,
        text -> Text,
    }
}

diesel::table! {
    forecasts (plan_id, day, horizon) {
        plan_id -> BigInt,
        day -> BigInt,
        horizon -> BigInt,
        seed -> BigInt,
        wins_millionths -> BigInt,
        p10_nano -> BigInt,
        p50_nano -> BigInt,
        p90_nano -> BigInt,
        made_at -> BigInt,
    }
}

diesel::allow_tables_to_appear_in_same_query!(
    users,
    sessions,
    audit_log,
    pools,
    plans,
    orders,
    payments,
    webhook_events,
    contracts,
    machines,
    enrolment_tokens,
    sectors,
    tasks,
    window_posts,
    messages,
    chain_cursors,
    chain_flows,
    block_wins,
    sector_intervals,
    pool_days,
    yield_lots,
    ledger_accounts,
    ledger_transfers,
    statements,
    jobs,
    claims,
    promises,
    promise_lessons
);
