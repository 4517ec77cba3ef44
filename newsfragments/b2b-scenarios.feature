b2b_logic reads scenario files in XML again (script_scenario, extern_scenario), as OpenSIPS did before 3.2; sipgw check reports what is wrong in them with file and line.
