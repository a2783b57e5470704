//! Twenty-seven failures that other systems had in public, and what shows that a group does not have them.
//!
//! *Simulation* is `engine/protocol/src/group/simulation`, where the named tests are in `scenarios.rs` and the random histories in
//! `histories.rs`. *Blows* are those of [`super::Blow`], in `tests/tests/hosts_faults.rs` and in `campaign --hosts 3`.
//!
//! | failure | elsewhere | shown by |
//! | --- | --- | --- |
//! | One process restarts while another holds its dead socket; all crash in turn for ever | materialize#12800 | Processes are started by attempts, all together: blow `KillProcess`; simulation `a_process_that_dies_is_followed_by_the_next_attempt_at_once` |
//! | Sixteen processes that restart each by itself are never up together | materialize#14301 | As above; blow `KillAll` |
//! | A proxy takes connections for a peer that is dead | materialize PR#12832, istio#30212 | `hosts_strangers`: `an_address_where_connections_are_taken_and_nobody_answers_is_a_lost_node` |
//! | A controller reconnects to processes of two incarnations | materialize#12386 | Cannot occur: a process has one connection with its keeper, which is never made again, and each order names its attempt. Simulation: random histories lose, repeat and reorder messages, and no node starts an attempt that no record holds |
//! | A host loses its power and nobody notices | materialize#20299, linkerd2#13023, flux-core#4116 | Blow `CutPower` |
//! | A frozen owner goes on after others took over | celld#193 | Blows `StopHost`, `StopCopy`; `zombies` |
//! | The recovery waits for the host that is lost | arroyo#728 | Blow `CutPower`; simulation `a_host_without_power_is_lost_and_its_return_is_a_change`, with a bound |
//! | A new coordinator has heard nobody yet, and moves everything | STORM-3984 | Simulation `a_new_coordinator_plans_only_when_it_has_heard_every_node_of_the_attempt` |
//! | Heartbeats wait behind a slow start of a process | storm#4418, risingwave#4562 | Nothing slow runs in the loop that sends them: processes are started and the store is called on other threads |
//! | A leader that lost its election goes on; several leaders at once | risingwave#7947, flink PR#24132 | Blows `StopCopy(Coordinator)`, `CutFromStore(Coordinator)`; simulation `a_coordinator_that_was_paused_orders_nothing_when_it_wakes_up` |
//! | A worker is removed while a checkpoint is under way, which is waited for for ever | risingwave#24591 | Every blow: there is a checkpoint each second |
//! | The store takes a conditional create and ignores the condition | celld#137 | `hosts_strangers`: `copies_are_refused_whose_store_lies_or_is_another_one_and_those_with_another_key`; `s3` |
//! | One's own create is reported as another's, or 409 with nothing stored | arrow-rs-object-store#852, slatedb#766 | `s3`: `creates_whose_outcome_is_unclear_are_looked_at_before_they_are_judged`; simulation: random histories lose the answers of creates |
//! | A writer that slept across a takeover and a deletion creates at a deleted position | slatedb#352 | Blow `StopHost`, which outlasts every timeout; `zombies`, with a grace of one second; the group's journal keeps a thousand records |
//! | A short outage of the store costs the lease; clocks that are apart make two leaders | celld#182, ClickHouse PR#101039 | There is no lease, and no clock takes part: blows `StoreAway` and `StoreAwayForAMinute`, `hosts_strangers`: `hosts_whose_clocks_are_apart_and_step_run_the_job`; simulation `a_store_that_is_away_for_all_interrupts_nothing` |
//! | Lists out of order and in pages, a list each turn, 429 taken for failure | litestream#1529, delta-rs#2451 | Each store of a test lists seven objects a page, in reverse order; `hosts_strangers`: `a_store_that_is_slow_and_throttles_makes_a_group_slow_and_nothing_else` |
//! | Processes that outlive their agent; a stranger killed by a reused process id; processes that end with the thread that started them | nomad#5593, #23969 | Blow `KillCopy` waits for the end of the copy's processes; signals go only to children that were not waited for, whose ids nobody else can have; the thread that starts processes lives as long as they |
//! | A host that was isolated goes on with what was replaced, or restarts it when it returns | nomad#2185, #24679 | Blow `Isolate` |
//! | A drain is complete before processes have ended | nomad#14293 | Blow `Leave` looks for processes that are left |
//! | A savepoint that was taken and not noted | flink-kubernetes-operator PR#245 | There are no savepoints |
//! | A checkpoint cannot be read, and the job starts empty | feldera#5613 | `bad_input`, the parts on checkpoints and on the store; `hosts_strangers`: a copy whose store is empty gets no work |
//! | The last checkpoint before a planned restart fails, and with it the job | arroyo PR#1128 | An attempt that was asked to stop is followed by the next one however it ended; simulation: random histories kill processes while attempts stop |
//! | A rescale begins before the old slots are free, for ever | flink PR#28999 | `hosts_members`: joins and leaves are one attempt each, and a replaced copy is two at most; simulation: every history ends settled |
//! | A follower takes over before it has caught up | materialize PR#38615 | There are no followers |
//! | A rolling restart of N nodes is N restarts of each job; a zombie rejoins | clickhouse-operator#1642, kafka PR#7771 | `hosts_members`: `a_rolling_update_flips_the_version_once_and_its_undo_flips_it_back`; simulation `a_rolling_update_changes_the_version_once`, `a_tie_keeps_the_version_that_runs`, `copies_that_join_within_seconds_are_one_change` |
//! | A liveness probe fails while another system is unreachable, and the platform restarts what works | helm/charts#2682, apicurio-registry-operator#215 | Blows `CutFromBroker` and `StoreAway` ask the copies meanwhile whether they are healthy |
//! | Certificates are renewed on disk, and nodes use the old ones until they expire | opensearch-k8s-operator#1451 | `hosts_strangers`: `copies_with_certificates_of_their_own_go_on_when_these_are_renewed` |
