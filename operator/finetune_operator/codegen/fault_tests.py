"""The faults of the reliability page: what a run does about each, and the tests that show it."""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    """A kind of fault, what a run does about it, and the tests that show it, each as `FILE::FUNCTION`."""

    fault: str
    reaction: str
    tests: tuple[str, ...]

    @property
    def is_caused_on_the_cluster(self) -> bool:
        """Whether a test causes it on the two-node cluster."""
        return any(test.startswith((_CLUSTER, _E2E)) for test in self.tests)


_CLUSTER, _E2E = "tests/faults", "tests/e2e"
_SCHEDULING = "tests/integration/scheduling"
_AGENT, _CHECKPOINT = "tests/integration/trainer/agent", "tests/integration/trainer/checkpoint"
_TRAINING = "tests/integration/trainer/training"
_POLICY, _CONTROLLER = "tests/unit/operator/reconcile", "tests/unit/operator/controller"
_API_SERVER = "tests/integration/operator/controller"

FAULTS: dict[int, Fault] = {
    1: Fault(
        "A pod is deleted.",
        "That pod alone is replaced; its peers wait for it and keep their pods.",
        (
            f"{_CLUSTER}/test_pod_faults.py::test_deleted_pod",
            f"{_E2E}/test_training_runs.py::test_sample_recovers_from_lost_pod_and_exports_model",
        ),
    ),
    2: Fault(
        "A rank, or a whole container, is killed.",
        "All ranks restart inside their pods; a pod is replaced only if its agent died.",
        (
            f"{_CLUSTER}/test_rank_faults.py::test_killed_rank",
            f"{_CLUSTER}/test_rank_faults.py::test_killed_container",
            f"{_AGENT}/test_rendezvous.py::test_killed_rank_restarts_with_all_others",
            f"{_AGENT}/test_spare.py::test_a_killed_rank_is_forked_from_the_spare_and_the_losses_are_equal",
            f"{_AGENT}/test_rendezvous.py::test_killed_agent_leaves_no_rank_and_its_replacement_joins",
        ),
    ),
    3: Fault(
        "A rank hangs.",
        "The limit of its phase in `runPolicy.hang` finds it; the message names the rank, and all ranks restart.",
        (
            f"{_CLUSTER}/test_rank_faults.py::test_stopped_rank",
            f"{_AGENT}/test_hangs.py::test_a_stopped_process_is_found_and_named",
            f"{_AGENT}/test_hangs.py::test_a_working_rank_is_not_killed",
            "tests/unit/trainer/agent/test_liveness.py::test_each_phase_has_its_limit",
            "tests/unit/trainer/agent/test_simulated_hours.py::test_no_working_run_is_killed",
        ),
    ),
    4: Fault(
        "A node loses its network.",
        "The node is named in the status as soon as Kubernetes knows of it, and its pod is replaced on another node after "
        "`runPolicy.nodeLostSeconds`; the peers stop and wait.",
        (
            f"{_CLUSTER}/test_lost_nodes.py::test_node_is_cut_off",
            f"{_CLUSTER}/test_pod_faults.py::test_node_without_network",
            f"{_POLICY}/test_node_loss.py::test_names_node_and_pod_at_once",
            f"{_POLICY}/test_node_loss.py::test_replaces_pod_after_the_limit_without_spending_the_budget",
            f"{_POLICY}/test_restart_policy.py::test_force_deletes_pod_on_lost_node",
            f"{_AGENT}/test_rendezvous.py::test_lost_peer_without_other_cause_restarts_ranks",
        ),
    ),
    5: Fault(
        "A rank is slower than the others.",
        "It is named in the status and in a metric, and left alone.",
        (
            f"{_CLUSTER}/test_stragglers.py::test_slow_rank",
            "tests/unit/trainer/tracking/test_stragglers.py::test_first_verdict",
            f"{_TRAINING}/test_stragglers.py::test_names_the_slow_rank",
            "tests/unit/trainer/tracking/test_stragglers.py::test_names_nobody_among_equal_ranks_on_a_loaded_machine",
        ),
    ),
    6: Fault(
        "A node computes wrongly, or its GPU, memory or network is slow.",
        "With `runPolicy.preflight` it is found before ranks start, the pod moves to another node, and the job avoids the node "
        "for an hour. Without it the run is slow or wrong there.",
        (
            f"{_CLUSTER}/test_preflight.py::test_hanging_node",
            f"{_AGENT}/test_preflight.py::test_a_node_that_fails_leaves_and_the_others_wait_for_its_replacement",
            "tests/unit/trainer/agent/test_preflight.py::test_names_the_failing_nodes",
            f"{_POLICY}/test_node_avoidance.py::test_replacement_avoids_the_node",
        ),
    ),
    7: Fault(
        "A kubelet stops.",
        "Pods that still answer train on. If one is replaced although its processes run on, they leave the run to the new pod.",
        (
            f"{_CLUSTER}/test_lost_nodes.py::test_kubelet_is_dead",
            f"{_CLUSTER}/test_pod_faults.py::test_stopped_kubelet",
            f"{_POLICY}/test_node_loss.py::test_run_whose_kubelet_is_dead_keeps_running",
            f"{_AGENT}/test_rendezvous.py::test_replaced_agent_that_still_lives_leaves_the_run_to_its_replacement",
            f"{_POLICY}/test_restart_policy.py::test_force_deletes_pod_on_lost_node",
        ),
    ),
    8: Fault(
        "A node is drained or tainted.",
        "The pod stores a checkpoint and moves to another node; no retry budget is spent.",
        (
            f"{_CLUSTER}/test_pod_faults.py::test_drained_node",
            f"{_CLUSTER}/test_pod_faults.py::test_tainted_node",
            f"{_POLICY}/test_restart_policy.py::test_disruptions_do_not_count_towards_backoff_limit",
            f"{_POLICY}/test_disruption_limit.py::test_run_that_progresses_on_spot_nodes_never_fails",
        ),
    ),
    9: Fault(
        "A pod gets SIGTERM with little time.",
        "All ranks agree on a step and store a checkpoint; if the time is too short, the previous checkpoint is used.",
        (
            f"{_CLUSTER}/test_rank_faults.py::test_short_grace",
            f"{_TRAINING}/test_loop.py::test_a_signal_on_one_rank_stops_all_ranks_at_the_same_step",
            f"{_AGENT}/test_rendezvous.py::test_stop_of_one_node_makes_other_wait_for_its_return",
        ),
    ),
    10: Fault(
        "A container exceeds its memory limit.",
        "The job fails with the reason OutOfMemory and advice, unless a rule of `runPolicy.failurePolicy` says otherwise.",
        (
            f"{_CLUSTER}/test_resource_faults.py::test_out_of_memory",
            "tests/unit/trainer/agent/test_worker_group.py::test_reports_out_of_memory_kill",
            f"{_TRAINING}/test_failures.py::test_out_of_memory_message_names_remedies",
            f"{_POLICY}/test_failure_policy.py::test_first_matching_rule_decides",
        ),
    ),
    11: Fault(
        "The configuration or the data is wrong.",
        "The job fails at once; the message names the field, or the file and line.",
        (
            f"{_E2E}/test_policies.py::test_invalid_spec_that_passes_the_schema_fails_at_once",
            f"{_E2E}/test_policies.py::test_malformed_data_fails_at_once_with_file_and_line",
            f"{_E2E}/test_policies.py::test_missing_bucket_fails_at_once",
            f"{_POLICY}/test_restart_policy.py::test_permanent_failure_fails_job_at_once",
        ),
    ),
    12: Fault(
        "The loss becomes NaN or infinite, or rises far above the losses before.",
        "As `training.lossAnomaly` says: the job fails, the step is skipped, or the run returns to its newest checkpoint and "
        "leaves out the batches since then. The rows of the micro-batch are named.",
        (
            f"{_CLUSTER}/test_loss_anomalies.py::test_spike",
            f"{_TRAINING}/test_loop.py::test_a_non_finite_loss_ends_the_run",
            f"{_TRAINING}/test_loss_anomalies.py::test_a_skipped_step_changes_nothing",
            f"{_TRAINING}/test_loss_anomalies.py::test_every_world_size_decides_alike",
            f"{_TRAINING}/test_loss_anomalies.py::test_a_stopped_and_resumed_run_has_the_same_history",
        ),
    ),
    13: Fault(
        "The operator is killed.",
        "Whatever it was doing is done once, after each of its writes.",
        (
            f"{_CLUSTER}/test_operator_faults.py::test_killed_operator",
            f"{_API_SERVER}/test_kill_points.py::test_outcome_is_the_same_after_a_kill_at_any_write",
            f"{_POLICY}/test_restart_policy.py::test_restarted_operator_reaches_same_state_after_any_write",
            f"{_E2E}/test_policies.py::test_restart_of_operator_changes_nothing",
        ),
    ),
    14: Fault(
        "The API server fails, or its watches are stale.",
        "Requests are repeated with growing pauses until the job is as it should be.",
        (
            f"{_API_SERVER}/test_api_faults.py::test_jobs_converge_without_duplicates_and_orphans",
            f"{_CONTROLLER}/test_action_executor.py::test_raises_temporary_api_errors",
            f"{_CONTROLLER}/test_reconciler.py::test_stale_cache_does_not_create_pods_twice",
            f"{_CONTROLLER}/test_status_writer.py::test_stale_job_is_not_written",
            f"{_CONTROLLER}/test_manager.py::test_resync_follows_the_restart_of_a_watch",
            f"{_CONTROLLER}/test_workqueue.py::test_retry_delay_grows_and_does_not_block_other_keys",
        ),
    ),
    15: Fault(
        "Jobs change while no operator runs.",
        "Running pods go on; the changes take effect when an operator is back.",
        (f"{_CLUSTER}/test_operator_faults.py::test_jobs_change_without_operator",),
    ),
    16: Fault(
        "Two operators run at once, or the leader's node is lost.",
        "A Lease decides which of them leads, and a standby takes over within 15 seconds. Without it too no pod is created "
        "twice and no failure is counted twice.",
        (
            f"{_CLUSTER}/test_lost_nodes.py::test_node_of_the_leader_is_cut_off",
            f"{_E2E}/test_leader_election.py::test_standby_takes_over_from_a_killed_leader",
            f"{_E2E}/test_leader_election.py::test_suspended_leader_writes_nothing_when_it_continues",
            f"{_CONTROLLER}/test_reconciler.py::test_accepts_pods_created_by_another_operator",
            f"{_CONTROLLER}/test_reconciler.py::test_failure_counted_by_another_operator_is_not_counted_again",
            f"{_POLICY}/test_failed_pods.py::test_concurrent_operators_never_create_two_pods_for_a_node",
        ),
    ),
    17: Fault(
        "A rank is killed while a checkpoint is uploaded.",
        "The incomplete checkpoint is never used.",
        (
            f"{_CLUSTER}/test_storage_faults.py::test_killed_during_upload",
            f"{_CHECKPOINT}/test_faults.py::test_rank_killed_during_upload_leaves_no_checkpoint",
        ),
    ),
    18: Fault(
        "A file of a checkpoint is damaged.",
        "Its hash does not match, and the checkpoint before is used.",
        (
            f"{_CLUSTER}/test_storage_faults.py::test_flipped_bit",
            f"{_CHECKPOINT}/test_faults.py::test_falls_back_from_damaged_checkpoint",
        ),
    ),
    19: Fault(
        "The files of a rank are missing in a checkpoint.",
        "It is not committed. If a file disappears later, the checkpoint before is used.",
        (
            f"{_CLUSTER}/test_storage_faults.py::test_missing_file",
            f"{_CHECKPOINT}/test_commit.py::test_requires_parts_of_all_ranks",
            f"{_CHECKPOINT}/test_faults.py::test_falls_back_from_damaged_checkpoint",
        ),
    ),
    20: Fault(
        "The object storage fails, is slow, or rejects the credentials.",
        "Training continues, `CheckpointHealthy` is False, and a checkpoint is stored soon after the storage is back.",
        (
            f"{_CLUSTER}/test_storage_faults.py::test_storage_outage",
            f"{_CLUSTER}/test_storage_faults.py::test_slow_storage",
            f"{_CHECKPOINT}/test_faults.py::test_training_continues_during_storage_outage",
            f"{_E2E}/test_policies.py::test_missing_bucket_fails_at_once",
        ),
    ),
    21: Fault(
        "An attempt that was replaced is still alive.",
        "It cannot commit checkpoints any more.",
        (
            f"{_CHECKPOINT}/test_commit.py::test_rejects_commit_of_replaced_attempt",
            f"{_AGENT}/test_rendezvous.py::test_replaced_agent_that_still_lives_leaves_the_run_to_its_replacement",
            f"{_TRAINING}/test_storage_lease.py::test_a_frozen_run_ends_when_it_wakes_up_without_its_storage",
        ),
    ),
    22: Fault(
        "The disk of a node, or `/dev/shm`, is full.",
        "The checkpoint fails with the reason, training goes on, and the next checkpoint is stored if there is room. A pod "
        "that is evicted for its own disk limit has failed. If `/dev/shm` is full, the job fails with the reason OutOfMemory. "
        "The message names the field that sets the size.",
        (
            f"{_CLUSTER}/test_resource_faults.py::test_disk_limit",
            f"{_CLUSTER}/test_resource_faults.py::test_full_disk",
            f"{_CHECKPOINT}/test_faults.py::test_failed_write_of_one_rank_prevents_commit",
            f"{_CHECKPOINT}/test_writer.py::test_a_full_disk_is_reported_with_its_remedy",
            f"{_TRAINING}/test_failures.py::test_full_disk_names_the_scratch_volume",
            f"{_TRAINING}/test_failures.py::test_full_shared_memory_is_neither_a_lost_peer_nor_a_full_disk",
        ),
    ),
    23: Fault(
        "The operator and the CRD are upgraded or rolled back.",
        "The run is not touched, and no finished job is run again. A job whose status a version cannot read is left alone.",
        (
            f"{_CLUSTER}/test_operator_faults.py::test_upgraded_operator",
            f"{_CLUSTER}/test_operator_faults.py::test_rolled_back_operator",
            f"{_API_SERVER}/test_rollback.py::test_no_run_is_touched_and_no_finished_job_is_run_again",
            f"{_API_SERVER}/test_rollback.py::test_status_that_cannot_be_read_is_left_alone",
        ),
    ),
    24: Fault(
        "The run ends while its outcome cannot be recorded.",
        "The outcome is recorded once when an operator is back, and the run is not repeated.",
        (
            f"{_CLUSTER}/test_operator_faults.py::test_jobs_change_without_operator",
            f"{_POLICY}/test_completion.py::test_pod_killed_after_completion_message_completes_job",
            f"{_POLICY}/test_completion.py::test_exit_code_0_without_an_outcome_is_a_failure",
        ),
    ),
    25: Fault(
        "One pod of a job cannot start.",
        "All of its pods are released after `runPolicy.pendingTimeoutSeconds`, with the reason in its status, and created "
        "again after a growing pause.",
        (
            f"{_SCHEDULING}/test_pods_that_cannot_start.py::test_two_jobs_where_three_pods_fit_finish_one_after_the_other",
            f"{_SCHEDULING}/test_pods_that_cannot_start.py::test_job_restarts_although_its_own_objects_use_up_the_quota",
            f"{_SCHEDULING}/test_pods_that_cannot_start.py::test_missing_claim_is_named_next_to_the_phase",
            f"{_SCHEDULING}/test_gangs.py::test_two_gangs_where_three_pods_fit_never_deadlock",
            f"{_POLICY}/test_gang_start.py::test_releases_all_pods_after_timeout_and_tries_again",
            f"{_POLICY}/test_gang_start.py::test_two_jobs_on_nodes_for_one_of_them_finish_one_after_the_other",
        ),
    ),
    26: Fault(
        "A queued job is preempted.",
        "It stores a checkpoint before its pods stop, and goes on from there when Kueue admits it again.",
        (
            f"{_CLUSTER}/test_queue.py::test_preempted_run",
            f"{_SCHEDULING}/test_kueue.py::test_preempted_job_comes_back",
        ),
    ),
    27: Fault(
        "A node is missing for longer than a moment.",
        "A job with `workers.minNodes` goes on with the nodes that are left, and takes the node back when it returns. The "
        "losses are those of an undisturbed run, apart from rounding. The seconds of a lost node include the 50 after which "
        "Kubernetes reports it.",
        (
            f"{_CLUSTER}/test_elastic.py::test_missing_node",
            f"{_CLUSTER}/test_elastic.py::test_lost_node",
            f"{_CLUSTER}/test_elastic.py::test_scaled_run",
            f"{_SCHEDULING}/test_elastic.py::test_runs_where_only_one_pod_fits_and_grows",
            f"{_AGENT}/test_elastic.py::test_two_nodes_one_node_two_nodes",
            f"{_POLICY}/test_elastic.py::test_flapping_node_and_killed_operator",
        ),
    ),
}

NOT_COVERED = (
    "The cluster of the tests has no GPUs: faults of GPUs, of NVLink, of RDMA and inside NCCL are not caused.",
    "A full `/dev/shm` is recognized by the messages of PyTorch and NCCL, and by the signal SIGBUS; training on CPUs does not "
    "use it, so it is not caused on the cluster.",
    "Kueue's partial admission and topology-aware scheduling are not supported: Kueue admits a job as a whole or not at all, "
    "wherever there is room ([Queues and gang scheduling](../guides/queues.md)).",
    "With two nodes, `runPolicy.preflight` gives no verdict on the network: if their connection is slow, either of them can be "
    "the cause ([Check nodes before training](../how-to/preflight.md)).",
    "Jobs with `hostNetwork` have no NetworkPolicy, and turning off `jobNetworkPolicy` leaves the policies of existing jobs in "
    "place ([Operator in production](../guides/operator-in-production.md)).",
    "With dropout, an elastic run that changes its size draws other masks, so its losses differ from those of a run that kept "
    "its size by more than rounding.",
)
"""What no test shows, and differences that are accepted."""
