//! The conformance suite: every case against the broker in memory and against the Redis adapter on a
//! private server (`SEGMENTER_TEST_SERVER`).

use segmenter_tests::conformance::{MemorySubject, RealSubject, cases};

macro_rules! cases {
    ($($area:ident: $($case:ident),+ $(,)?;)+) => {
        mod memory {
            $(mod $area {
                use super::super::*;
                $(#[test]
                fn $case() {
                    cases::$area::$case(&mut MemorySubject::default());
                })+
            })+
        }
        mod real {
            $(mod $area {
                use super::super::*;
                $(#[test]
                fn $case() {
                    cases::$area::$case(&mut RealSubject::default());
                })+
            })+
        }
        /// A case that nobody runs is no case.
        #[test]
        fn every_case_is_run() {
            $({
                let source = include_str!(concat!("../src/conformance/cases/", stringify!($area), ".rs"));
                let named = [$(stringify!($case)),+];
                for case in source.lines().filter_map(|l| l.strip_prefix("pub fn ")) {
                    let case = case.split('(').next().unwrap_or(case);
                    assert!(named.contains(&case), "{case} is not in the list");
                }
            })+
        }
    };
}

cases! {
    register:
        registering_again_with_the_same_shape_finds_the_first,
        another_shape_is_refused_and_told,
        a_payload_limit_is_part_of_the_shape,
        a_stream_that_is_being_deleted_is_not_registered,
        a_deleted_stream_begins_anew_under_another_uid;
    source:
        a_stream_that_nobody_writes_yet_is_bound_once_it_is_there,
        another_source_is_refused_and_told,
        a_stream_of_our_own_is_not_bound_afterwards,
        entries_from_before_and_after_it_was_bound_are_read_as_they_lie,
        acked_entries_stay_and_the_lag_falls,
        nothing_is_appended_to_what_others_write,
        dead_letters_seek_and_skip_are_as_in_any_stream,
        dead_letters_go_on_to_a_stream_of_ours_under_our_names,
        groups_of_others_are_left_as_they_are,
        a_deleted_group_leaves_all_entries,
        a_deleted_stream_leaves_what_others_wrote_and_is_bound_anew,
        a_name_that_was_bound_may_become_a_stream_of_our_own;
    append:
        what_was_appended_is_read_whole_and_in_order,
        an_append_to_a_nearly_full_partition_accepts_a_prefix,
        without_a_group_a_full_partition_refuses_and_keeps_everything,
        an_append_with_another_uid_or_to_no_partition_writes_nothing,
        a_read_begins_above_its_position_and_ends_at_its_count,
        an_entry_from_elsewhere_is_read_as_it_lies;
    trim:
        a_commit_trims_behind_the_slowest_group_only,
        a_commit_that_does_not_ask_for_it_trims_nothing,
        a_full_partition_makes_room_from_what_all_groups_acked,
        a_group_that_is_not_ours_keeps_its_pending_entries,
        a_group_that_is_not_ours_keeps_what_it_was_not_given,
        retained_entries_stay_while_there_is_room,
        a_full_partition_drops_retained_entries_but_no_more_than_it_needs,
        ids_beyond_53_bits_are_compared_and_carried_exactly,
        the_slowest_of_groups_with_large_ids_is_found;
    groups:
        a_group_from_the_beginning_has_all_entries_before_it,
        a_group_from_the_end_has_nothing_before_it,
        a_group_from_the_beginning_of_a_trimmed_log_has_a_right_lag,
        a_group_that_exists_is_left_as_it_is,
        a_group_of_that_name_without_a_lease_is_someone_elses,
        a_group_of_a_stream_that_is_another_by_now_is_not_made;
    leases:
        an_acquire_takes_the_lease_whoever_holds_it,
        a_released_lease_keeps_what_is_acked,
        a_commit_is_fenced_by_each_part_of_its_fence,
        a_release_is_fenced_by_each_part_of_its_fence,
        a_commit_sent_twice_is_fenced_the_second_time,
        a_zombie_cannot_commit_after_a_release_or_another_acquire,
        leases_are_verified_in_the_order_asked,
        without_group_or_stream_there_is_nothing_to_acquire,
        after_a_delete_an_owner_is_fenced_and_the_stream_is_gone;
    commit:
        the_lag_falls_to_nothing_when_all_is_acked,
        a_commit_of_the_last_entry_corrects_a_count_that_is_off,
        a_count_is_not_corrected_if_entries_follow,
        a_dead_letter_keeps_the_message_whole,
        a_dead_letter_with_thousands_of_fields_is_kept_whole,
        a_fenced_commit_keeps_no_dead_letter,
        a_commit_never_goes_back,
        a_commit_may_ack_an_id_that_is_no_entry,
        a_failed_attempt_is_recorded_without_an_ack_and_outlives_its_owner,
        a_takeover_counts_against_the_first_message_that_is_not_acked,
        a_commit_may_halt_the_partition_and_a_resume_forgets_the_attempts,
        a_commit_may_say_which_version_handles_by_now,
        a_crash_counts_under_the_version_that_the_lease_has_for_its_entry;
    deploy:
        bytes_are_kept_by_their_digest_and_no_others,
        damaged_bytes_are_told_and_mended_by_the_next_store,
        nothing_is_wanted_of_a_handler_that_was_never_deployed,
        the_first_version_is_current_at_once,
        a_candidate_is_on_trial_and_others_are_told,
        the_time_of_a_trial_runs_by_the_brokers_clock,
        a_trial_is_settled_once_and_only_as_it_is_meant,
        what_was_rolled_back_is_marked_bad_until_it_is_deployed_again,
        a_shadow_that_ends_well_leaves_what_runs,
        going_back_ends_a_candidate_first_and_then_leads_further_back,
        going_back_with_a_reason_marks_what_is_left,
        going_to_another_version_ends_a_candidate_too,
        bytes_that_no_handler_needs_any_more_go,
        bad_marks_and_history_are_bounded,
        reports_are_kept_whole_and_told_to_who_judges,
        reports_of_each_handler_stay_apart,
        long_texts_are_cut,
        what_is_too_large_for_redis_is_not_sent;
    operator:
        a_seek_to_the_start_gives_everything_again_and_fences_the_owner,
        a_seek_to_the_start_of_a_trimmed_log_counts_what_is_left,
        a_seek_to_the_end_acks_everything_and_trimming_may_take_it,
        a_seek_to_an_id_goes_on_with_that_entry_or_the_next_one,
        a_seek_counts_a_log_of_many_entries_exactly,
        a_halted_partition_is_acquired_by_nobody_until_it_is_resumed,
        a_seek_of_a_halted_partition_leaves_it_halted,
        a_skip_makes_the_head_a_dead_letter_and_goes_on,
        a_skipped_entry_with_thousands_of_fields_is_kept_whole,
        a_deleted_group_is_gone_with_what_it_alone_needed,
        nobody_joins_a_group_that_was_deleted,
        a_delete_spares_a_group_of_that_name_that_is_someone_elses,
        nothing_is_done_to_a_stream_that_is_another_by_now;
    effects:
        state_is_changed_with_the_ack,
        thousands_of_values_change_at_once,
        each_group_has_a_state_of_its_own,
        emitted_messages_wait_in_the_outbox_in_the_order_of_their_stamps,
        emitted_messages_that_differ_in_target_and_attributes_keep_their_order,
        a_fenced_commit_changes_no_state_and_emits_nothing,
        a_stamp_that_was_given_out_is_refused_and_changes_nothing;
    outbox:
        what_a_source_sends_again_is_there_already,
        messages_of_a_source_that_differ_in_their_fields_arrive_whole,
        a_target_that_lost_what_its_source_knows_to_be_there_takes_nothing,
        a_producers_numbers_are_its_own,
        a_partition_remembers_so_many_producers_and_no_more,
        an_append_from_a_source_tells_ids_and_lies_there_whole,
        a_full_target_accepts_a_prefix_and_goes_on_from_there,
        stamps_beyond_53_bits_are_compared_exactly,
        an_append_from_a_source_to_another_creation_of_a_stream_writes_nothing,
        an_outbox_is_loaded_in_pages_and_emptied_by_stamps,
        what_cannot_be_relayed_is_a_dead_letter_with_its_target,
        redriven_letters_move_into_the_outbox_and_fence_the_owner,
        a_buried_message_is_redriven_as_it_was_emitted,
        letters_of_a_stream_or_group_that_is_gone_are_not_redriven,
        purged_letters_are_gone_and_counted,
        emitted_messages_of_an_older_epoch_are_refused_after_a_redrive;
    members:
        a_join_is_a_new_generation_and_tells_when_another_expires,
        a_heartbeat_changes_no_generation,
        a_heartbeat_of_nobody_is_unknown,
        a_join_with_a_live_id_supersedes,
        a_join_sent_again_by_the_same_incarnation_changes_nothing,
        an_overtaken_sync_is_ignored,
        who_leaves_is_a_member_no_more,
        a_silent_member_expires_after_its_session_timeout_and_not_before,
        who_heartbeats_does_not_expire,
        nobody_expires_for_a_time_in_which_nobody_was_heard,
        a_member_of_an_earlier_stream_is_told_that_it_is_gone,
        nobody_joins_a_stream_that_is_being_deleted;
    assignment:
        who_joins_is_on_duty_and_gets_what_it_installed,
        a_partition_is_granted_only_when_its_owner_has_it_no_more,
        what_was_granted_counts_as_owned_though_its_taker_was_not_heard_since,
        a_grant_whose_answer_was_lost_is_given_again,
        who_is_not_known_to_have_what_its_digest_says_is_asked_for_it_whole,
        an_install_for_an_older_generation_or_a_second_one_is_overtaken,
        the_duty_passes_on_if_its_bearer_does_nothing,
        an_expired_member_has_nothing,
        a_member_started_again_has_its_assignment_at_once,
        a_member_reports_what_the_coordinator_forgot,
        what_a_member_refuses_is_told_to_who_is_on_duty,
        who_drains_is_granted_nothing,
        more_members_than_partitions_stand_by,
        a_group_takes_no_more_members_than_it_may;
}
