//! The one test binary: it drives the real program, as real users, with real images, browsers and networks.
//!
//! Its `main` is its own, since it makes things that have to go when the last test is over, and since it runs itself
//! again as another user, to be that user's eyes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking; all of this binary is tests"
)]

mod arguments;
mod attacked;
mod browser;
mod cli;
mod crowd;
mod endings;
mod faults;
mod files;
mod floors;
mod forms;
mod forwards;
mod gateway;
mod harness;
mod idle;
mod in_allocation;
mod in_allocation_node;
mod in_job;
mod in_job_again;
mod in_job_attacks;
mod in_job_endings;
mod in_job_faults;
mod in_job_leftovers;
mod in_job_link;
mod in_job_ways;
mod job_checks;
mod loopback;
mod neighbour;
mod network;
mod password;
mod sftp;
mod sharing;
mod slurm;
mod ssh;
mod terminals;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

use harness::{
    Site,
    needs::Need::{self, Apptainer, Browser, Internet, OpenSsh, Pam, Pasta, Root, Slurm},
    place, scan,
};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    if let [_, role, targets] = &words[..]
        && role == scan::ROLE
    {
        scan::run(targets);
        return ExitCode::SUCCESS;
    }
    let conclusion = libtest_mimic::run(&Arguments::from_args(), proofs());
    place::remove();
    conclusion.exit_code()
}

/// Names the proofs of some modules, each with what it needs besides root.
macro_rules! proofs {
    ($($module:ident: $($proof:ident [$($need:ident),*])*;)*) => {
        vec![$($(proof(concat!(stringify!($module), "::", stringify!($proof)), &[Root, $($need),*], $module::$proof),)*)*]
    };
}

fn proofs() -> Vec<Trial> {
    let mut all = proofs! {
        arguments:
            arguments_reach_the_start_script_unchanged [Apptainer]
            arguments_are_the_command_with_exec_and_without_an_image [Apptainer]
            the_environment_that_was_asked_for_reaches_the_app [Apptainer]
            what_is_bound_is_seen_and_the_home_can_be_kept_out [Apptainer]
            a_home_an_overlay_and_a_port_of_one_s_own [Apptainer];
        attacked:
            strangers_connections_do_not_end_a_session []
            a_session_ends_where_proc_hides_processes [Pasta]
            a_host_that_proc_hides_is_not_gone []
            a_list_with_other_eyes_harms_nothing []
            another_user_s_runtime_folder_is_not_believed []
            a_session_whose_runtime_folder_was_removed_is_still_stopped []
            a_stopped_supervisor_is_killed_by_stop []
            a_stopped_start_does_not_hold_its_session_up [];
        browser:
            a_cell_run_in_a_real_browser_gives_its_result [Apptainer, Pasta, Browser]
            the_starting_page_moves_on_to_the_app_by_itself [Browser]
            threat_10_a_terminal_is_used_shared_and_taken_back_in_real_browsers [Browser];
        cli:
            start_and_show_print_what_programs_rely_on []
            names_can_be_shortened_as_long_as_they_are_unique []
            a_name_in_use_is_refused []
            root_starts_no_session []
            a_missing_image_is_refused [Apptainer]
            a_session_that_does_not_exist_is_named []
            a_port_that_never_opens_is_given_up []
            an_app_that_dies_at_once_shows_its_last_lines_and_its_status []
            a_bad_configuration_is_refused []
            an_ended_session_is_remembered_until_it_is_forgotten []
            a_site_s_certificate_is_used []
            exec_ends_with_the_command_s_own_status [Apptainer]
            a_client_that_goes_at_once_leaves_no_command []
            exec_on_a_terminal_gets_one []
            logs_follow_until_the_session_ends []
            doctor_prints_a_line_for_each_thing []
            verify_finds_nothing_open []
            verify_as_another_user_holds_and_finds_what_was_opened [];
        crowd:
            fifty_sessions_at_once_by_two_users []
            connections_leave_no_descriptor [];
        endings:
            the_session_ends_with_its_app_and_its_status []
            the_foreground_ends_with_the_app_s_status []
            ctrl_c_in_the_foreground_leaves_nothing []
            a_hang_up_of_the_terminal_leaves_nothing []
            stop_takes_a_fork_bomb_and_its_daemons_with_it []
            stop_asks_before_it_kills []
            a_background_session_outlives_its_terminal [];
        faults:
            killing_any_process_of_a_bare_session_leaves_nothing [Pasta]
            killing_any_process_of_an_image_s_session_leaves_nothing [Apptainer, Pasta]
            killing_the_supervisor_at_any_moment_of_the_start_leaves_nothing [Apptainer, Pasta]
            killing_start_itself_leaves_nothing []
            after_a_reboot_the_list_is_clean_and_the_name_is_free []
            a_reused_process_number_is_not_signalled [];
        files:
            a_runtime_folder_that_somebody_else_made_is_refused []
            everything_private_is_private_whatever_the_umask []
            a_full_disk_is_told_and_leaves_nothing []
            the_private_tmp_is_the_session_s_own_and_on_disk []
            nothing_is_left_of_a_session_s_files [];
        forms:
            an_image_is_pulled_by_its_uri [Apptainer]
            where_namespaces_are_forbidden_nothing_is_started_with_less []
            an_image_can_be_a_folder_and_its_run_script_stands_in [Apptainer]
            a_socket_instead_of_namespaces_is_out_of_others_reach []
            an_app_that_opens_a_port_is_refused_without_namespaces [];
        gateway:
            a_token_works_once_and_leaves_no_trace []
            nobody_gets_in_without_a_token_or_with_another_session_s_cookie []
            websockets_of_other_origins_are_refused []
            other_hosts_are_misdirected []
            tunnels_are_refused []
            the_app_never_sees_our_cookie_and_cannot_set_it []
            bodies_and_events_stream_both_ways []
            a_websocket_echoes []
            who_asked_for_what_is_written_down []
            the_gateway_can_be_a_socket_in_a_private_folder [];
        idle:
            a_session_that_nobody_uses_ends_though_its_page_polls []
            a_session_that_computes_does_not_end_and_one_without_a_timeout_neither []
            a_slow_download_holds_a_session_and_its_end_does_not []
            keys_hold_a_session_and_output_does_not []
            typing_over_ssh_and_in_a_shell_holds_a_session [OpenSsh]
            a_busy_gpu_holds_a_session_and_one_that_cannot_be_read_does_not []
            what_is_no_time_is_refused_and_who_has_settled_it_can_change_it []
            a_session_in_a_job_gives_its_node_back [Slurm]
            a_forgotten_tab_of_jupyterlab_s_does_not_hold_a_session [Apptainer, Pasta, Browser];
        in_job_faults:
            a_cancelled_job_s_app_is_asked_and_its_session_ends [Slurm, Pasta]
            a_job_s_time_is_told_and_its_app_is_asked_before_it_is_over [Slurm, OpenSsh]
            a_node_s_failure_ends_a_session_that_is_not_to_run_again [Slurm]
            a_requeued_session_runs_again_at_its_url [Slurm]
            a_controller_that_hangs_ends_nothing [Slurm, OpenSsh];
        in_job_link:
            a_link_that_is_cut_for_a_minute_loses_nothing_and_doubles_nothing [Slurm, OpenSsh]
            a_host_that_is_stopped_for_a_while_goes_on [Slurm];
        in_job_leftovers:
            killing_any_process_on_the_node_leaves_nothing_there [Slurm, Apptainer, Pasta]
            an_app_s_daemons_go_with_its_job [Slurm]
            stop_ends_the_job_wherever_the_session_stands [Slurm]
            a_session_without_a_gateway_keeps_its_name_while_its_job_runs [Slurm]
            a_job_that_has_its_number_by_now_is_left_alone [Slurm]
            stop_says_what_it_could_not_do [Slurm]
            a_full_disk_on_the_node_is_told_and_leaves_nothing [Slurm, Apptainer];
        loopback:
            another_user_s_connections_leave_the_owner_in []
            a_cookie_is_good_for_its_user_alone [];
        neighbour:
            another_user_reaches_nothing_of_a_bare_session []
            another_user_reaches_nothing_of_an_image_s_session [Apptainer, Pasta]
            no_process_ever_shows_a_secret []
            the_environment_makes_nothing_run_with_other_rights [Apptainer]
            an_app_cannot_type_on_the_terminal_it_was_started_from []
            the_app_holds_no_descriptor_and_no_capability_of_ours [Apptainer];
        network:
            outbound_works_by_name_at_the_first_instruction [Pasta, Internet]
            outbound_works_behind_a_resolver_on_loopback [Pasta, Internet]
            outbound_works_from_an_image [Apptainer, Pasta, Internet]
            nothing_comes_in_and_the_node_s_loopback_is_out_of_reach [Pasta, Internet]
            isolated_reaches_nothing [Internet];
        sharing:
            a_viewer_sees_and_does_nothing []
            a_guest_who_may_type_types_and_resizes_nothing []
            revoking_cuts_off_at_once []
            revoking_cuts_off_who_does_not_listen []
            revoking_is_heard_while_nothing_is_read []
            a_visit_ends_by_itself_unless_it_is_extended []
            a_code_is_good_for_one_person []
            a_recording_says_who_typed_what []
            an_owner_by_ssh_sees_who_is_there_and_ends_it_with_one_key [OpenSsh]
            threat_37_a_guest_by_ssh_gets_the_terminal_and_nothing_else [OpenSsh]
            revoking_cuts_ssh_off_at_once [OpenSsh];
        job_checks:
            verify_attacks_both_sides_of_a_session_in_a_job [Slurm]
            verify_attacks_an_image_on_a_node [Apptainer, Pasta, Slurm]
            verify_finds_what_was_opened_on_either_side [Slurm]
            what_verify_cannot_try_on_a_node_does_not_count_as_held [Slurm]
            doctor_looks_at_slurm_where_it_is_and_at_the_job_it_is_in [Slurm]
            doctor_does_not_wait_long_for_a_controller [Slurm];
        slurm:
            the_cluster_runs_apptainer_in_a_job [Apptainer, Slurm]
            what_breaks_in_a_cluster_can_be_mended [Slurm];
        in_job:
            two_nodes_serve_two_sessions_and_are_left_as_they_were [Apptainer, Pasta, Slurm]
            a_cell_run_on_a_node_gives_its_result [Apptainer, Pasta, Browser, Slurm]
            stop_asks_before_it_kills_on_a_node_as_well [Slurm];
        in_job_again:
            a_session_whose_job_was_cancelled_is_started_again [Slurm]
            a_page_starts_a_session_again [Slurm, Browser]
            a_session_that_nobody_used_is_started_again [Slurm]
            a_session_that_nobody_used_ends_as_others_do [Slurm]
            whoever_follows_a_restart_holds_nothing_up_and_hears_the_end [Slurm]
            a_session_whose_node_failed_is_started_on_another [Slurm]
            an_interrupted_session_whose_node_is_gone_ends_in_its_time [Slurm]
            a_session_is_not_kept_for_ever [Slurm];
        in_allocation:
            beside_an_allocation_nothing_starts_on_the_login_node_by_mistake [Slurm]
            from_the_shell_of_salloc_sessions_run_in_the_allocation [Slurm, OpenSsh]
            the_end_of_an_allocation_is_the_session_s_and_is_told [Slurm]
            a_gateway_that_is_gone_is_followed_by_another_or_by_the_end [Slurm];
        in_allocation_node:
            on_a_node_a_session_waits_for_a_gateway_from_a_login_node [Slurm]
            a_session_without_a_gateway_is_ended_from_either_side [Slurm]
            the_command_that_brings_a_gateway_comes_to_its_end [Slurm]
            a_script_s_own_session_ends_with_its_status_or_with_its_job [Slurm];
        in_job_attacks:
            threat_40_nothing_of_slurm_s_holds_a_secret [Slurm]
            threat_41_nobody_but_the_session_s_own_job_is_let_through [Slurm]
            threat_41_strangers_who_say_nothing_keep_nobody_out [Slurm]
            threat_42_a_host_tells_nothing_to_a_false_gateway [Slurm]
            threat_42_nobody_takes_the_port_that_hosts_dial [Slurm];
        in_job_endings:
            what_slurm_refuses_is_told_in_its_words [Slurm]
            an_account_that_may_not_use_a_partition_is_told_of [Slurm]
            what_a_node_lacks_is_told_by_its_name [Apptainer, Slurm]
            an_app_that_does_not_begin_on_a_node_is_told_as_here [Slurm]
            a_controller_that_does_not_answer_harms_no_session [Slurm]
            a_session_that_waits_has_a_page_that_says_why [Slurm]
            a_hundred_sessions_wait_in_the_queue [Slurm];
        in_job_ways:
            every_command_reaches_a_session_in_a_job [Apptainer, Slurm]
            ssh_and_all_that_stands_on_it_reach_a_session_in_a_job [OpenSsh, Slurm]
            a_terminal_in_a_job_is_used_and_shared [Slurm];
        terminals:
            a_page_gets_a_shell_in_the_session []
            several_terminals_and_several_pages_of_one []
            fifty_broken_connections_lose_nothing_and_double_nothing []
            an_interrupt_is_seen_at_once []
            what_is_not_shown_fills_no_memory []
            threat_39_no_message_does_harm []
            tmux_is_one_for_all_ways_in [OpenSsh]
            an_image_has_tmux_by_default_where_it_says_so [Apptainer];
        password:
            pam_lets_in_by_one_s_own_password_alone [Pam]
            an_account_that_is_no_longer_good_is_refused [Pam]
            a_module_that_hangs_or_crashes_says_nothing [Pam];
        ssh:
            the_owner_s_own_process_needs_no_key [OpenSsh]
            a_key_opens_the_port_and_everything_comes_back_exactly [OpenSsh]
            streams_go_through_to_their_end [OpenSsh]
            a_program_whose_client_has_gone_is_hung_up [OpenSsh]
            a_terminal_is_one [OpenSsh]
            threat_38_the_environment_is_what_it_may_be [OpenSsh]
            nobody_else_gets_in [OpenSsh]
            an_image_s_session_is_entered_as_well [OpenSsh, Apptainer]
            it_listens_where_the_gateway_does [OpenSsh]
            a_password_or_a_token_opens_as_well [OpenSsh, Pam]
            a_certificate_opens_what_it_is_for [OpenSsh]
            what_a_key_is_for_is_all_it_does [OpenSsh]
            files_are_copied_by_all_that_stands_on_ssh [OpenSsh]
            an_editor_s_server_lives_on_and_is_reached [OpenSsh]
            threat_36_strangers_are_cut_off [OpenSsh];
        forwards:
            the_app_is_reached_by_every_kind_of_forward [OpenSsh]
            a_program_inside_reaches_the_client [OpenSsh]
            unix_sockets_go_both_ways_and_leave_nothing [OpenSsh]
            the_agent_is_there_for_the_connection_and_for_its_owner_alone [OpenSsh]
            many_channels_share_a_connection [OpenSsh]
            without_a_network_of_its_own_nothing_is_forwarded_over_tcp [OpenSsh];
        sftp:
            files_go_in_and_out_of_a_session [OpenSsh]
            what_cannot_be_done_is_told [OpenSsh]
            a_large_folder_is_listed_and_any_name_is_a_name [OpenSsh]
            an_image_s_files_are_served_and_the_node_s_are_not [OpenSsh, Apptainer]
            a_client_does_not_end_a_session_without_namespaces [OpenSsh, Apptainer]
            without_a_home_in_the_image_a_client_starts_at_its_root [OpenSsh, Apptainer]
            a_client_that_goes_takes_its_server_with_it [OpenSsh];
    };
    all.push(Trial::test("floors::imports_point_only_downward", || {
        floors::imports_point_only_downward();
        Ok(())
    }));
    all.push(Trial::test("floors::unsafe_code_stands_in_sys_alone", || {
        floors::unsafe_code_stands_in_sys_alone();
        Ok(())
    }));
    all
}

fn proof(name: &'static str, needs: &[Need], prove: fn(&Site)) -> Trial {
    let missing = needs.iter().find_map(|need| need.missing());
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    match missing {
        Some(why) if ci => Trial::test(name, move || Err(why.into())),
        Some(why) => {
            Trial::test(name, || Ok(())).with_kind(format!("SKIPPED, {why}")).with_ignored_flag(true)
        }
        None => Trial::test(name, move || {
            let site = Site::new();
            prove(&site);
            site.close();
            Ok(())
        }),
    }
}
